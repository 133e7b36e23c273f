// SPDX-License-Identifier: Apache-2.0
import { apiServerCompliance, startApiServer } from "./index.ts";

apiServerCompliance("the stand-in over TLS", () => startApiServer());
apiServerCompliance("the stand-in over plain HTTP", () => startApiServer({ plain: true }));
