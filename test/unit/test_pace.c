/*-------------------------------------------------------------------------
 * test_pace.c
 *	  When tasks start and end, with and without limits
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "pace.h"

#define TASK(s) {.state = PACE_WAITING, .seconds = (s), .room = {-1, -1, -1, -1}}
#define IN_ROOM(s, r, n) {.state = PACE_WAITING, .seconds = (s), .room = {(r), -1, -1, -1}, .slots = {(n)}}

/* Starts and ends in the order of the tasks, "?" for what is not known. */
static void
expect(PaceTask *tasks, int ntasks, const PaceEdge *edges, int nedges, PaceRoom *rooms, int nrooms, const char *expected)
{
	StrBuf		found;

	strbuf_init(&found);
	pace(tasks, ntasks, edges, nedges, rooms, nrooms);
	for (int t = 0; t < ntasks; t++)
	{
		strbuf_addstr(&found, t == 0 ? "" : " ");
		if (tasks[t].start < 0)
			strbuf_addstr(&found, "?");
		else
			strbuf_printf(&found, "%g", tasks[t].start);
		if (tasks[t].end < 0)
			strbuf_addstr(&found, "-?");
		else
			strbuf_printf(&found, "-%g", tasks[t].end);
	}
	CHECK_STR(found.data, expected);
	strbuf_free(&found);
}

static void
test_no_limits(void)
{
	PaceTask	tasks[] = {TASK(10), TASK(5), TASK(1), TASK(PACE_UNKNOWN), TASK(1)};
	PaceEdge	edges[] = {{0, 2}, {1, 2}, {2, 3}, {3, 4}};

	expect(tasks, 5, edges, 4, NULL, 0, "0-10 0-5 10-11 11-? ?-?");
	tasks[0].state = PACE_RUNNING;
	tasks[0].seconds = 2;
	tasks[1].state = PACE_ENDED;
	expect(tasks, 5, edges, 4, NULL, 0, "?-2 ?-0 2-3 3-? ?-?");
	tasks[2].not_before = 60;
	expect(tasks, 5, edges, 4, NULL, 0, "?-2 ?-0 60-61 61-? ?-?");
	tasks[0].seconds = PACE_UNKNOWN;
	expect(tasks, 5, edges, 4, NULL, 0, "?-? ?-0 ?-? ?-? ?-?");
	expect(tasks, 0, NULL, 0, NULL, 0, "");
}

/* Five tasks of ten seconds and two slots: three waves. */
static void
test_waves(void)
{
	PaceTask	tasks[] = {IN_ROOM(10, 0, 1), IN_ROOM(10, 0, 1), IN_ROOM(10, 0, 1), IN_ROOM(10, 0, 1), IN_ROOM(10, 0, 1), TASK(1)};
	PaceEdge	edges[] = {{0, 5}, {1, 5}, {2, 5}, {3, 5}, {4, 5}};
	PaceRoom	rooms[] = {{2}};

	expect(tasks, 6, edges, 5, rooms, 1, "0-10 0-10 10-20 10-20 20-30 30-31");
	tasks[4].priority = 1;
	expect(tasks, 6, edges, 5, rooms, 1, "0-10 10-20 10-20 20-30 0-10 30-31");
	rooms[0].total = 5;
	expect(tasks, 6, edges, 5, rooms, 1, "0-10 0-10 0-10 0-10 0-10 10-11");
	rooms[0].total = 0;
	expect(tasks, 6, edges, 5, rooms, 1, "?-? ?-? ?-? ?-? ?-? ?-?");
}

/* A big one keeps the slots that are free; one that is too big for ever keeps nothing. */
static void
test_big_ones(void)
{
	PaceTask	tasks[] = {IN_ROOM(10, 0, 1), IN_ROOM(10, 0, 2), IN_ROOM(3, 0, 1), IN_ROOM(1, 0, 9)};
	PaceRoom	rooms[] = {{2}};

	tasks[1].priority = 1;
	tasks[3].priority = 9;
	tasks[0].state = PACE_RUNNING;
	expect(tasks, 4, NULL, 0, rooms, 1, "?-10 10-20 20-23 ?-?");
	tasks[1].priority = -1;
	expect(tasks, 4, NULL, 0, rooms, 1, "?-10 10-20 0-3 ?-?");
}

/* What holds a slot for nobody knows how long makes those behind it unknown, unless another slot comes free. */
static void
test_unknown_holder(void)
{
	PaceTask	tasks[] = {IN_ROOM(PACE_UNKNOWN, 0, 1), IN_ROOM(4, 0, 1), IN_ROOM(1, 0, 1)};
	PaceRoom	rooms[] = {{2}};

	tasks[0].state = tasks[1].state = PACE_RUNNING;
	expect(tasks, 3, NULL, 0, rooms, 1, "?-? ?-4 4-5");
	tasks[1].seconds = PACE_UNKNOWN;
	expect(tasks, 3, NULL, 0, rooms, 1, "?-? ?-? ?-?");
	rooms[0].total = 1;			/* fewer than are taken */
	tasks[1].seconds = 4;
	expect(tasks, 3, NULL, 0, rooms, 1, "?-? ?-4 ?-?");
}

/* A pool, a connection and a worker at once. */
static void
test_rooms(void)
{
	PaceTask	tasks[] = {
		{.seconds = 10, .room = {0, 1, -1, -1}, .slots = {1, 1, 0}},
		{.seconds = 10, .room = {0, 2, -1, -1}, .slots = {1, 1, 0}},
		{.seconds = 10, .room = {-1, 1, -1, -1}, .slots = {0, 1, 0}},
	};
	PaceRoom	rooms[] = {{1}, {1}, {1}};

	expect(tasks, 3, NULL, 0, rooms, 3, "0-10 10-20 10-20");
	rooms[0].total = 2;
	expect(tasks, 3, NULL, 0, rooms, 3, "0-10 0-10 10-20");
}

/* Three slots; the first task runs, the second needs two and a place that it has not: the slots are not kept for it. */
static void
test_nothing_kept(void)
{
	PaceTask	tasks[] = {
		{.state = PACE_RUNNING, .seconds = 10, .room = {0, -1, -1, 1}, .slots = {1, 0, 0, 1}},
		{.seconds = 10, .priority = 1, .room = {0, -1, -1, 1}, .slots = {3, 0, 0, 1}},
		{.seconds = 10, .room = {0, -1, -1, -1}, .slots = {1, 0, 0, 0}},
	};
	PaceRoom	rooms[] = {{3}, {1}};

	expect(tasks, 3, NULL, 0, rooms, 2, "?-10 10-20 0-10");
	rooms[1].total = 2;
	expect(tasks, 3, NULL, 0, rooms, 2, "?-10 10-20 20-30");
}

/* At any moment no room is overfull, and nothing starts before what it waits for: whatever the graph. */
static void
test_random(void)
{
	Random		rnd = {17};

	for (int round = 0; round < 200; round++)
	{
		PaceTask	tasks[30] = {{0}};
		PaceEdge	edges[100];
		PaceRoom	rooms[2] = {{1 + random_below(&rnd, 4)}, {1 + random_below(&rnd, 4)}};
		int			nedges = 0;

		for (int t = 0; t < 30; t++)
		{
			tasks[t].seconds = random_below(&rnd, 5);
			tasks[t].priority = random_below(&rnd, 3);
			for (int k = 0; k < PACE_ROOMS; k++)
				tasks[t].room[k] = -1;
			for (int k = 0; k < 2; k++)
				if (random_below(&rnd, 2) == 0)
				{
					tasks[t].room[k] = k;
					tasks[t].slots[k] = 1 + random_below(&rnd, rooms[k].total);
				}
			for (int to = t + 1; to < 30 && nedges < 100; to++)
				if (random_below(&rnd, 10) == 0)
					edges[nedges++] = (PaceEdge){t, to};
		}
		pace(tasks, 30, edges, nedges, rooms, 2);
		for (int e = 0; e < nedges; e++)
			CHECK(tasks[edges[e].to].start >= tasks[edges[e].from].end);
		for (int t = 0; t < 30; t++)
		{
			int			used[2] = {0};

			CHECK(tasks[t].start >= 0 && tasks[t].end == tasks[t].start + tasks[t].seconds);
			for (int o = 0; o < 30; o++)
				for (int k = 0; k < 2; k++)
					if (tasks[o].room[k] >= 0 && tasks[o].start <= tasks[t].start && tasks[t].start < tasks[o].end)
						used[k] += tasks[o].slots[k];
			CHECK(used[0] <= rooms[0].total && used[1] <= rooms[1].total);
		}
	}
}

void
test_pace(void)
{
	test_no_limits();
	test_waves();
	test_big_ones();
	test_unknown_holder();
	test_rooms();
	test_nothing_kept();
	test_random();
}
