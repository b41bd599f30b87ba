// What Microsoft's SDK for queues does and finds, whoever serves: the local cloud, and a storage server that is not ours, answer alike.

import { all, check, refused } from "./localcloud.mjs";

export async function queues(service) {
    const client = service.getQueueClient("events");
    const missing = await refused(() => client.receiveMessages());
    check("queue: unknown", missing?.statusCode === 404 && missing.code === "QueueNotFound", missing);
    await client.create();
    check("queue: made once", (await client.createIfNotExists()).succeeded === false);
    const put = await client.sendMessage("hello <&>");
    check("queue: sent", put.messageId && put.popReceipt && put.expiresOn > put.insertedOn && put.nextVisibleOn, put);
    const peeked = (await client.peekMessages()).peekedMessageItems;
    check("queue: peeked", peeked.length === 1 && peeked[0].messageText === "hello <&>", peeked);
    check("queue: length", (await client.getProperties()).approximateMessagesCount === 1);
    const got = (await client.receiveMessages({ visibilityTimeout: 6000 })).receivedMessageItems[0];
    check("queue: received", got.messageId === put.messageId && got.dequeueCount === 1 && got.nextVisibleOn > got.insertedOn, got);
    check("queue: hidden", (await client.receiveMessages()).receivedMessageItems.length === 0);
    const kept = await client.updateMessage(got.messageId, got.popReceipt, "changed", 6000);
    check("queue: updated", kept.popReceipt && kept.popReceipt !== got.popReceipt && kept.nextVisibleOn, kept);
    const stale = await refused(() => client.deleteMessage(got.messageId, got.popReceipt));
    check("queue: an old receipt", stale?.statusCode === 400 && stale.code === "PopReceiptMismatch", stale);
    await client.deleteMessage(got.messageId, kept.popReceipt);
    check("queue: gone", (await refused(() => client.deleteMessage(got.messageId, kept.popReceipt)))?.statusCode === 404);
    check("queue: listed", (await all(service.listQueues())).map(one => one.name).join() === "events");
    await client.delete();
}
