// pg-boss: jobs are rows kept after they are done; polling, here with its LISTEN/NOTIFY.

import { PgBoss } from 'pg-boss';
import { readFileSync } from 'node:fs';
import { makeAdapter, value } from './adapter.mjs';

const KINDS = ['noop', 'chain', 'start', 'middle', 'join'];
let boss;

const adapter = {
	async setup() {
		boss = new PgBoss({ host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE,
			max: 12, useListenNotify: true, flowIntervalSeconds: 1 });
		boss.on('error', problem => process.stderr.write(problem.message + '\n'));
		await boss.start();
		for (const kind of KINDS)
			await boss.createQueue(kind, { notify: true });
		const { version } = JSON.parse(readFileSync('node_modules/pg-boss/package.json', 'utf8'));
		return { version };
	},

	async enqueue(jobs) {
		for (let done = 0; done < jobs; done += 5000)
			await boss.insert('noop', Array.from({ length: Math.min(5000, jobs - done) }, () => ({ data: {} })));
	},

	send: kind => boss.send(kind, {}),

	unfinished: () => value("SELECT count(*) FROM pgboss.job WHERE state IN ('created', 'retry', 'active')"
		+ ` AND name IN ('${KINDS.join("', '")}')`),

	async work(workers, handlers, batched) {
		const kinds = Object.keys(handlers);
		const how = batched ? { batchSize: 100, burstWhenBatchFull: true } : { batchSize: 1 };
		for (const kind of kinds)
			await boss.work(kind, { ...how, pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5,
				localConcurrency: kind === 'start' || kind === 'join' ? 1 : workers },
			async jobs => { for (const job of jobs) await handlers[kind](job); });
		return async () => { for (const kind of kinds) await boss.offWork(kind); };
	},

	// Its flows know dependencies: the join is part of what is put in.
	fan: width => {
		const middle = Array.from({ length: width }, (none, number) => `m${number}`);
		return boss.flow([
			{ ref: 'start', name: 'start' },
			...middle.map(ref => ({ ref, name: 'middle', dependsOn: ['start'] })),
			{ ref: 'join', name: 'join', dependsOn: middle },
		]);
	},
};

makeAdapter(adapter);
