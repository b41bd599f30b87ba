/*-------------------------------------------------------------------------
 * xml.c
 *	  Answers in XML, element by element
 *
 * Runs in the conductor, on bytes from outside.  The parser is expat: it
 * streams, has no global state (PostgreSQL itself may use libxml2, with error
 * handlers of its own) and resolves nothing external.  A document type is
 * refused at its first byte, so there are no entities but the five of XML
 * and nothing can grow.  Its memory is that of the context current at the
 * call, so an error for lack of memory leaves nothing behind.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <expat.h>

#include "xml.h"

#define MAX_DEPTH	16
#define MAX_PATH	512
#define MAX_TEXT	(256 * 1024)

typedef struct Reader
{
	XML_Parser	parser;
	XmlElement	element;
	void	   *arg;
	const char *error;			/* NULL: fine so far */
	char		path[MAX_PATH];
	int			depth;
	size_t		path_len[MAX_DEPTH];	/* of the path to each level */
	size_t		text_from[MAX_DEPTH];	/* where its text begins */
	bool		is_encoded[MAX_DEPTH];
	StrBuf		text;
} Reader;

static void *
allocate(size_t size)
{
	return mem_alloc(Max(size, 1));
}

static void *
reallocate(void *ptr, size_t size)
{
	return ptr == NULL ? allocate(size) : mem_realloc(ptr, Max(size, 1));
}

static void
release(void *ptr)
{
	if (ptr != NULL)
		mem_free(ptr);
}

static void
stop(Reader *reader, const char *error)
{
	if (reader->error == NULL)
		reader->error = error;
	XML_StopParser(reader->parser, XML_FALSE);
}

static void XMLCALL
on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	Reader	   *reader = arg;
	size_t		at = reader->depth > 0 ? reader->path_len[reader->depth - 1] : 0;
	size_t		len = strlen(name);

	if (reader->error != NULL)
		return;
	if (reader->depth == MAX_DEPTH || at + len + 2 > MAX_PATH)
	{
		stop(reader, "is nested too deep");
		return;
	}
	reader->path[at] = '/';
	memcpy(reader->path + at + 1, name, len + 1);
	reader->path_len[reader->depth] = at + 1 + len;
	reader->text_from[reader->depth] = reader->text.len;
	reader->is_encoded[reader->depth] = false;
	for (; *attributes != NULL; attributes += 2)
	{
		if (strcmp(attributes[0], "Encoded") == 0 && strcmp(attributes[1], "true") == 0)
			reader->is_encoded[reader->depth] = true;
	}
	reader->depth++;
}

static void XMLCALL
on_end(void *arg, const XML_Char *name)
{
	Reader	   *reader = arg;
	int			level;

	(void) name;
	if (reader->error != NULL)
		return;
	level = --reader->depth;
	reader->path[reader->path_len[level]] = '\0';
	reader->element(reader->arg, reader->path, reader->text.data + reader->text_from[level],
					reader->is_encoded[level]);
	reader->text.len = reader->text_from[level];
	reader->text.data[reader->text.len] = '\0';
}

static void XMLCALL
on_text(void *arg, const XML_Char *text, int len)
{
	Reader	   *reader = arg;

	if (reader->error != NULL)
		return;
	if (reader->text.len + (size_t) len > MAX_TEXT)
		stop(reader, "has a text that is too long");
	else
		strbuf_add(&reader->text, text, (size_t) len);
}

static void XMLCALL
on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	(void) name;
	(void) sysid;
	(void) pubid;
	(void) internal;
	stop(arg, "has a document type");
}

bool
xml_read(const char *text, size_t len, XmlElement element, void *arg, const char **error)
{
	static const XML_Memory_Handling_Suite memory = {allocate, reallocate, release};
	Reader		reader;

	memset(&reader, 0, sizeof(reader));
	reader.element = element;
	reader.arg = arg;
	*error = NULL;
	if (len > INT32_MAX)
	{
		*error = "is too long";
		return false;
	}
	reader.parser = XML_ParserCreate_MM(NULL, &memory, NULL);
	if (reader.parser == NULL)
	{
		*error = "cannot be read";
		return false;
	}
	strbuf_init(&reader.text);
	XML_SetUserData(reader.parser, &reader);
	XML_SetElementHandler(reader.parser, on_start, on_end);
	XML_SetCharacterDataHandler(reader.parser, on_text);
	XML_SetStartDoctypeDeclHandler(reader.parser, on_doctype);
	if (XML_Parse(reader.parser, text, (int) len, 1) != XML_STATUS_OK && reader.error == NULL)
		reader.error = "is not well-formed XML";
	XML_ParserFree(reader.parser);
	strbuf_free(&reader.text);
	*error = reader.error;
	return reader.error == NULL;
}
