-- Rules about the extension's own objects.  Every query lists what breaks a
-- rule and must find nothing.

-- every object and every column says what it is for
CREATE TEMP VIEW member AS
SELECT classid, objid FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'weir');

SELECT pg_describe_object(m.classid, m.objid, 0) AS without_comment
FROM member AS m
WHERE NOT EXISTS (SELECT FROM pg_description AS d
				  WHERE d.classoid = m.classid AND d.objoid = m.objid AND d.objsubid = 0)
	AND NOT (m.classid = 'pg_type'::regclass AND EXISTS (
		SELECT FROM pg_type AS t WHERE t.oid = m.objid AND (t.typrelid <> 0 OR t.typelem <> 0)))
ORDER BY 1;

SELECT c.relname || '.' || a.attname AS column_without_comment
FROM member AS m JOIN pg_class AS c ON c.oid = m.objid JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
	AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
ORDER BY 1;

-- PUBLIC has nothing, three roles have what they need; three functions of views that PUBLIC may read
SELECT p.oid::regprocedure AS public_may_execute
FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid,
	LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
WHERE m.classid = 'pg_proc'::regclass AND acl.grantee = 0
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- (views with a row rule of their own are the exception, for reading)
SELECT c.oid::regclass AS public_may_use, acl.privilege_type
FROM member AS m JOIN pg_class AS c ON c.oid = m.objid, LATERAL aclexplode(c.relacl) AS acl
WHERE m.classid = 'pg_class'::regclass AND acl.grantee = 0
	AND NOT (c.relkind = 'v' AND acl.privilege_type = 'SELECT'
			 AND coalesce('security_barrier=true' = ANY (c.reloptions), false))
ORDER BY c.oid::regclass::text COLLATE "C";

-- nothing in SQL depends on the caller's search_path; no PL/pgSQL
SELECT p.oid::regprocedure AS search_path_not_pinned
FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid JOIN pg_language AS l ON l.oid = p.prolang
WHERE m.classid = 'pg_proc'::regclass AND l.lanname = 'sql' AND p.prosqlbody IS NULL
	AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT p.oid::regprocedure AS neither_sql_nor_c
FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid JOIN pg_language AS l ON l.oid = p.prolang
WHERE m.classid = 'pg_proc'::regclass AND l.lanname NOT IN ('sql', 'c')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- the schema holds nothing that does not belong to the extension
SELECT c.oid::regclass AS stray
FROM pg_class AS c
WHERE c.relnamespace = 'weir'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
	AND NOT EXISTS (SELECT FROM member AS m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
ORDER BY c.oid::regclass::text COLLATE "C";

-- definitions hold names and role names, never raw OIDs of other kinds
SELECT c.relname || '.' || a.attname AS raw_oid
FROM member AS m JOIN pg_class AS c ON c.oid = m.objid JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
	AND a.atttypid IN ('oid'::regtype, 'regclass'::regtype, 'regproc'::regtype, 'regprocedure'::regtype)
ORDER BY 1;
