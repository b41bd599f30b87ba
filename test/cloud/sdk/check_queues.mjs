// The session of Microsoft's SDK for queues with a storage server.
//
//     node check_queues.mjs http://127.0.0.1:10001/devstoreaccount1 devstoreaccount1 KEY
//
// Needs @azure/storage-queue.

import { QueueServiceClient, StorageSharedKeyCredential } from "@azure/storage-queue";

import { report } from "./localcloud.mjs";
import { queues } from "./queues.mjs";

const [url, account, key] = process.argv.slice(2);

await queues(new QueueServiceClient(url, new StorageSharedKeyCredential(account, key)));
report();
