// What the adapters of Node.js peers share: commands as lines of JSON on stdin, answers on stdout.
//
// An adapter gives makeAdapter() an object:
//   setup()                       installs the peer's schema; its answer says the version
//   enqueue(jobs)                 puts in so many no-op jobs, not measured
//   send(kind)                    puts in one job in a transaction of its own
//   unfinished()                  how many jobs are not recorded as done
//   work(workers, handlers, batched)  starts workers; gives a function that stops them
//   fan(width)                    starts a fan-out whose last job is of the kind "join"
// Handlers are called with the kind of the job: noop, chain, start, middle, join.

import pg from 'pg';
import { createInterface } from 'node:readline';

export const pool = new pg.Pool({ max: 12 });
pool.on('error', () => {});

export async function value(sql, parameters) {
	return Object.values((await pool.query(sql, parameters)).rows[0])[0];
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

// A promise and what resolves it.
function signal() {
	const made = {};
	made.promise = new Promise(resolve => { made.resolve = resolve; });
	return made;
}

// Resolves at the call number `calls` of count(); knows when the first was.
class Counter {
	constructor(calls) {
		this.left = calls;
		this.all = signal();
	}

	count() {
		this.first ??= performance.now();
		if (--this.left === 0) {
			this.last = performance.now();
			this.all.resolve();
		}
	}
}

// From the first job's start until the last is recorded as done.
async function drained(adapter, counter) {
	await counter.all.promise;
	while (Number(await adapter.unfinished()) > 0)
		await pause(2);
	return (performance.now() - counter.first) / 1000;
}

export function makeAdapter(adapter) {
	const operations = {
		setup: () => adapter.setup(),

		async throughput({ jobs, workers, batched }) {
			const counter = new Counter(jobs);
			await adapter.enqueue(jobs);
			const stop = await adapter.work(workers, { noop: () => counter.count() }, batched);
			const seconds = await drained(adapter, counter);
			await stop();
			return { seconds };
		},

		// Batch after batch for so many seconds; enqueueing them is part of it.
		async rate({ seconds, batch, workers, batched }) {
			let counter;
			const stop = await adapter.work(workers, { noop: () => counter.count() }, batched);
			const start = performance.now();
			let done = 0;
			while (performance.now() - start < seconds * 1000) {
				counter = new Counter(batch);
				await adapter.enqueue(batch);
				await drained(adapter, counter);
				done += batch;
			}
			const rate = done / ((performance.now() - start) / 1000);
			await stop();
			return { rate };
		},

		async latency({ samples, limit, from, to, workers }) {
			let started;
			const stop = await adapter.work(workers, { noop: () => started.resolve(performance.now()) }, false);
			const ms = [];
			const begin = performance.now();
			for (let sample = -3; sample < samples; sample++) {	// three to warm up
				const warm = sample < 0 ? 50 : from + Math.random() * (to - from);
				if (performance.now() - begin > limit * 1000 && ms.length > 0)
					break;
				await pause(warm);
				started = signal();
				const sent = performance.now();
				await adapter.send('noop');
				const taken = await started.promise - sent;
				if (sample >= 0)
					ms.push(taken);
			}
			while (Number(await adapter.unfinished()) > 0)
				await pause(2);
			await stop();
			return { ms };
		},

		// Every step puts in the next one.
		async chain({ steps, workers }) {
			const counter = new Counter(steps);
			const chain = async () => {
				counter.count();
				if (counter.left > 0)
					await adapter.send('chain');
			};
			const stop = await adapter.work(workers, { chain }, false);
			await adapter.send('chain');
			await drained(adapter, counter);
			await stop();
			return { seconds: (counter.last - counter.first) / 1000 };
		},

		async fan({ width, workers }) {
			const times = {};
			const joined = signal();
			const stop = await adapter.work(workers, {
				start: () => { times.start = performance.now(); },
				middle: () => {},
				join: () => { times.join = performance.now(); joined.resolve(); },
			}, true);
			await adapter.fan(width);
			await joined.promise;
			while (Number(await adapter.unfinished()) > 0)
				await pause(2);
			await stop();
			return { seconds: (times.join - times.start) / 1000 };
		},
	};

	(async () => {
		for await (const line of createInterface({ input: process.stdin })) {
			const command = JSON.parse(line);
			let answer;
			try {
				answer = await operations[command.op](command);
			} catch (problem) {
				answer = { error: String(problem?.stack ?? problem) };
			}
			process.stdout.write(JSON.stringify(answer ?? {}) + '\n');
		}
		process.exit(0);
	})();
}
