// A hand that works queues through Microsoft's SDK: those who send what weir waits for, and those who look.
//
//     node queue_hand.mjs URL ACCOUNT KEY '[["create", "events"], ["send", "events", "text"], ["peek", "events"]]'
//
// Prints the list of results.  Needs @azure/storage-queue.

import { AccountSASPermissions, AccountSASResourceTypes, AccountSASServices, generateAccountSASQueryParameters,
    generateQueueSASQueryParameters, QueueSASPermissions, QueueServiceClient, StorageSharedKeyCredential } from "@azure/storage-queue";

const [url, account, key, steps] = process.argv.slice(2);
const credential = new StorageSharedKeyCredential(account, key);
const service = new QueueServiceClient(url, credential);
const from_now = minutes => new Date(Date.now() + minutes * 60000);

const actions = {
    create: async queue => (await service.getQueueClient(queue).createIfNotExists()).succeeded,
    send: async (queue, text) => (await service.getQueueClient(queue).sendMessage(text)).messageId,
    // as many senders do it
    send_base64: async (queue, text) => (await service.getQueueClient(queue).sendMessage(Buffer.from(text).toString("base64"))).messageId,
    // those that nobody has received of late
    peek: async queue => (await service.getQueueClient(queue).peekMessages({ numberOfMessages: 32 })).peekedMessageItems
        .map(one => ({ text: one.messageText, dequeued: one.dequeueCount })),
    // hidden ones too
    count: async queue => (await service.getQueueClient(queue).getProperties()).approximateMessagesCount,
    // of the account's queues, for so many minutes from now
    sas: async minutes => generateAccountSASQueryParameters({ startsOn: from_now(minutes - 120), expiresOn: from_now(minutes),
        permissions: AccountSASPermissions.parse("rwdlacup"), services: AccountSASServices.parse("q").toString(),
        resourceTypes: AccountSASResourceTypes.parse("sco").toString() }, credential).toString(),
    // of one queue: to receive its messages and delete them
    queue_sas: async queue => generateQueueSASQueryParameters({ queueName: queue, expiresOn: from_now(60),
        permissions: QueueSASPermissions.parse("rp") }, credential).toString(),
};

const results = [];
for (const [name, ...parameters] of JSON.parse(steps))
    results.push(await actions[name](...parameters));
console.log(JSON.stringify(results));
