export async function measureReceivedRecords(): Promise<void> {}
