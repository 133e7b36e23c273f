// SPDX-License-Identifier: Apache-2.0
/** What every long running program does around its work: help, settings, signals, exit codes. */
export { type Program, type ProgramContext, runProgram } from "./run-program.ts";
