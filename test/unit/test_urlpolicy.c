/*-------------------------------------------------------------------------
 * test_urlpolicy.c
 *	  The URL policy against urlpolicy_cases.txt, which explains its format
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "../../src/net/urlparse.h"

#define MAX_TEST_RULES	20
#define MAX_WORDS		4

static HostRule hosts[MAX_TEST_RULES];
static int	n_hosts;
static NetworkRule networks[MAX_TEST_RULES];
static int	n_networks;

/* \t \n \r \s \0xHH, in place; any other backslash is one */
static void
unescape(char *text)
{
	char	   *out = text;

	while (*text != '\0')
	{
		const char *found = text[0] == '\\' && text[1] != '\0' ? strchr("t\tn\nr\rs ", text[1]) : NULL;

		if (strncmp(text, "\\0x", 3) == 0)
		{
			char		digits[3] = {text[3], text[4], '\0'};

			*out++ = (char) strtol(digits, NULL, 16);
			text += 5;
		}
		else if (found != NULL && strchr("tnrs", text[1]) != NULL)
		{
			*out++ = found[1];
			text += 2;
		}
		else
			*out++ = *text++;
	}
	*out = '\0';
}

static void
set_hosts(char *list)
{
	const char *why = "";

	n_hosts = 0;
	for (char *entry = list ? strtok(list, ",") : NULL; entry; entry = strtok(NULL, ","))
		CHECK_CASE(host_rule_parse(entry, strlen(entry), &hosts[n_hosts++], &why), "%s: %s", entry, why);
}

static void
set_networks(char *list)
{
	const char *why = "";

	n_networks = 0;
	for (char *entry = list ? strtok(list, ",") : NULL; entry; entry = strtok(NULL, ","))
		CHECK_CASE(network_rule_parse(entry, strlen(entry), &networks[n_networks++], &why), "%s: %s", entry, why);
}

static const char *
verdict(const char *url)
{
	UrlParts	parts;
	const char *why;

	if (!url_parse(url, &parts, &why))
		return "refuse";
	for (int i = 0; i < n_hosts; i++)
	{
		if (!host_rule_matches(&hosts[i], &parts))
			continue;
		if (parts.is_address &&
			!net_address_allowed(&parts.address, parts.is_plain, networks, n_networks))
			return "refuse-address";
		return "allow";
	}
	return "refuse";
}

static void
run_case(char **word, int line)
{
	NetAddress	address;
	HostRule	host;
	NetworkRule network;
	const char *why = NULL;

	if (strcmp(word[0], "hosts") == 0)
		set_hosts(word[1]);
	else if (strcmp(word[0], "networks") == 0)
		set_networks(word[1]);
	else if (strcmp(word[0], "address") == 0)
	{
		bool		allowed = net_address_parse(word[3], &address) &&
			net_address_allowed(&address, strcmp(word[1], "http") == 0, networks, n_networks);

		CHECK_CASE(allowed == (strcmp(word[2], "allow") == 0), "line %d: %s", line, word[3]);
	}
	else if (strcmp(word[0], "bad-host") == 0)
	{
		unescape(word[1]);
		CHECK_CASE(!host_rule_parse(word[1], strlen(word[1]), &host, &why) && why != NULL,
				   "line %d: %s is accepted", line, word[1]);
	}
	else if (strcmp(word[0], "bad-network") == 0)
		CHECK_CASE(!network_rule_parse(word[1], strlen(word[1]), &network, &why) && why != NULL,
				   "line %d: %s is accepted", line, word[1]);
	else
	{
		unescape(word[1]);
		CHECK_CASE(strcmp(verdict(word[1]), word[0]) == 0, "line %d: %s: %s", line, word[1], verdict(word[1]));
	}
}

void
test_urlpolicy(void)
{
	char		path[1024] = __FILE__;
	char		line[1024];
	FILE	   *file;

	strcpy(strrchr(path, '/') + 1, "urlpolicy_cases.txt");
	file = fopen(path, "r");
	if (!CHECK(file != NULL))
		return;
	for (int number = 1; fgets(line, sizeof(line), file); number++)
	{
		char	   *word[MAX_WORDS] = {NULL};
		int			n = 0;

		if (line[0] == '#')
			continue;
		for (char *w = strtok(line, " \n"); w && n < MAX_WORDS; w = strtok(NULL, " \n"))
			word[n++] = w;
		if (n > 0)
			run_case(word, number);
	}
	fclose(file);
}
