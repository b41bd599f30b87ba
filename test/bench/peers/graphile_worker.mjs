// graphile-worker: jobs are rows that are deleted when done; LISTEN/NOTIFY wakes the workers.

import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { readFileSync } from 'node:fs';
import { makeAdapter, pool, value } from './adapter.mjs';

const logger = new Logger(() => (level, message) => { if (level === 'error') process.stderr.write(message + '\n'); });
let utils;

const adapter = {
	async setup() {
		utils = await makeWorkerUtils({ pgPool: pool, logger });
		await utils.migrate();
		await pool.query('CREATE TABLE fan (id int PRIMARY KEY, missing int NOT NULL)');
		const { version } = JSON.parse(readFileSync('node_modules/graphile-worker/package.json', 'utf8'));
		return { version };
	},

	async enqueue(jobs) {
		for (let done = 0; done < jobs; done += 5000)
			await utils.addJobs(Array.from({ length: Math.min(5000, jobs - done) }, () => ({ identifier: 'noop' })));
	},

	send: kind => utils.addJob(kind, {}),

	unfinished: () => value('SELECT count(*) FROM graphile_worker.jobs'),

	async work(workers, handlers, batched) {
		const taskList = Object.fromEntries(Object.entries(handlers).map(([kind, handler]) => [kind, handler]));
		if (handlers.start)
			Object.assign(taskList, fanTasks(handlers));
		const preset = { worker: batched === 'tuned'
			? { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } : {} };
		const runner = await run({
			pgPool: pool, logger, taskList, concurrency: batched === 'tuned' ? 24 : workers, noHandleSignals: true, preset,
		});
		return () => runner.stop();
	},

	fan: width => utils.addJob('start', { width }),
};

// There is no join: the jobs count down in a row, and who comes to zero adds the last job.
function fanTasks(handlers) {
	return {
		async start({ width }, helpers) {
			handlers.start();
			await helpers.query('INSERT INTO fan VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET missing = $1', [width]);
			await helpers.addJobs(Array.from({ length: width }, () => ({ identifier: 'middle' })));
		},
		async middle(payload, helpers) {
			const { rows } = await helpers.query('UPDATE fan SET missing = missing - 1 WHERE id = 1 RETURNING missing');
			if (rows[0].missing === 0)
				await helpers.addJob('join', {});
		},
		join: handlers.join,
	};
}

makeAdapter(adapter);
