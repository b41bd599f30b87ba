/*-------------------------------------------------------------------------
 * xml.h
 *	  Answers in XML, element by element
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_XML_H
#define WEIR_XML_H

/*
 * Called at the end of each element with its path, "/Root/List/Item/Name",
 * its own text (without that of elements inside) and whether it has an
 * attribute Encoded="true".
 */
typedef void (*XmlElement) (void *arg, const char *path, const char *text, bool is_encoded);

/*
 * False and *error if it is not well-formed, has a document type (and so
 * entities of its own), is nested deeper than 16 elements or holds a text
 * longer than 256 kB; "element" may have been called by then.
 */
extern bool xml_read(const char *text, size_t len, XmlElement element, void *arg, const char **error);

#endif							/* WEIR_XML_H */
