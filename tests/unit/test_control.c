/*
 * test_control.c - the control socket: requests, and clients that mean harm.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "vmm/control.h"
#include "vmm/vm.h"

static char dir[] = "/tmp/umbra-test-control-XXXXXX", path[64];
static struct vmm_config config;
static struct vm vm;

/* ---- requests ----------------------------------------------------------------------------------------------------- */

static json_t *ask_text(const char *text, size_t n)
{
	char line[CONTROL_LINE_MAX + 1], *answer;
	json_t *root;

	memcpy(line, text, n);
	answer = control_answer(&vm, line, n);
	assert_non_null(answer);
	assert_ptr_equal(strchr(answer, '\n'), answer + strlen(answer) - 1);
	root = json_loads(answer, 0, NULL);
	assert_non_null(root);
	assert_int_equal(json_integer_value(json_object_get(root, "schema")), 1);
	free(answer);
	return root;
}

static void words(void **state)
{
	char line[64], *w[4];

#define SPLIT(text)	(memcpy(line, text, sizeof text - 1), control_split(line, sizeof text - 1, w, 4))
	assert_int_equal(SPLIT(""), 0);
	assert_int_equal(SPLIT(" \t "), 0);
	assert_int_equal(SPLIT("  numa  move 12\t3 "), 4);
	assert_string_equal(w[0], "numa");
	assert_string_equal(w[1], "move");
	assert_string_equal(w[3], "3");
	assert_int_equal(SPLIT("stats\r"), 1);
	assert_string_equal(w[0], "stats");
	assert_int_equal(SPLIT("a b c d e"), -E2BIG);
	assert_int_equal(SPLIT("a\0b"), -EINVAL);
	assert_int_equal(SPLIT("a\rb"), -EINVAL);
	assert_int_equal(SPLIT("a\x7f"), -EINVAL);
	assert_int_equal(SPLIT("\xc3\xa9"), -EINVAL);
#undef SPLIT
}

static void requests(void **state)
{
	json_t *r = ask_text("help", 4), *reply = json_object_get(r, "reply");

	assert_true(json_is_true(json_object_get(r, "ok")));
	for (const struct control_command *c = control_commands; c->name; c++) {
		assert_non_null(json_object_get(reply, c->name));
		assert_true(*c->what && c->usage);
	}
	json_decref(r);

	static const char *const bad[] = { "", "nonsense", "help me", "a\nb", "stats\x1b[2J" };
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		r = ask_text(bad[i], strlen(bad[i]));
		assert_true(json_is_false(json_object_get(r, "ok")));
		assert_true(json_string_length(json_object_get(r, "error")) > 0);
		json_decref(r);
	}
	r = ask_text("describe", 8);
	reply = json_object_get(json_object_get(r, "reply"), "mmu");
	assert_true(json_string_length(json_object_get(reply, "hidden")) > 0);
	json_decref(r);
}

static void refused(const char *request, const char *why)
{
	json_t *r = ask_text(request, strlen(request));
	const char *error = json_string_value(json_object_get(r, "error"));

	assert_true(json_is_false(json_object_get(r, "ok")));
	if (!error || !strstr(error, why))
		fail_msg("'%s': '%s', not '%s'", request, error ? error : "(no error)", why);
	json_decref(r);
}

/* What `numa` refuses, on a made-up host; tests/e2e/numa.sh has what it does. */
static void numa_requests(void **state)
{
	struct vcpu vcpus[2] = { 0 };

	vm.ram_frames = 1000;
	vm.nr_vcpus = 2;
	vm.vcpus = vcpus;
	vm.topology = (struct numa_topology){ .nr_nodes = 1, .with_memory = 1, .with_cpus = 1 };
	vm.topology.node[0].exists = true;
	refused("numa", "want one of");
	refused("numa dance", "want one of");
	refused("numa show me", "no arguments");
	refused("numa map 0", "want FIRST COUNT");
	refused("numa map 0 1 2", "want FIRST COUNT");
	refused("numa map 0 1", "one NUMA node");
	refused("numa move vcpu 0 node 0", "one NUMA node");
	refused("numa move", "want 'vcpu V node N'");
	refused("numa policy", "want NAME");
	refused("numa policy auto now", "want NAME");
	refused("numa policy nonsense", "no policy is called 'nonsense'");
	refused("numa policy migrate,hot=x", "hot=x");
	refused("numa policy auto", "one NUMA node");
	refused("numa explain 0", "1 to 512");
	refused("numa explain -1", "1 to 512");
	refused("numa explain 513", "1 to 512");
	refused("numa explain 1 2", "want");
	vm.topology.nr_nodes = 0;
	refused("numa map 0 1", "cannot be read");

	vm.topology = (struct numa_topology){ .nr_nodes = 3, .highest = 3, .with_memory = 0x9, .with_cpus = 0x3 };
	for (unsigned i = 0; i < 4; i++)
		vm.topology.node[i].exists = i != 2;
	CPU_SET(0, &vm.topology.node[0].cpus);
	vm.topology.node[0].nr_cpus = 1;
	static const char *const ranges[] = {
		"-1 1", "0x10 1", "1 ", "0 0", "1e3 1", "0 99999999999999999999", "+1 1", "1 -1",
	};
	for (unsigned i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		char request[80];

		snprintf(request, sizeof request, "numa move range %s node 0", ranges[i]);
		refused(request, "want");
	}
	refused("numa map 1000 1", "frames are 0 to 999");
	refused("numa map 999 2", "frames are 0 to 999");
	refused("numa map 1 999999999999999999", "frames are 0 to 999");
	refused("numa move range 0 1 node 1", "no memory");
	refused("numa move range 0 1 node 2", "no node '2'");
	refused("numa move range 0 1 node 64", "no node");
	refused("numa move range 0 1 node 18446744073709551616", "no node");
	refused("numa move range 0 1 to 0", "want");
	refused("numa move vcpu 2 node 0", "vCPUs 0 to 1");
	refused("numa move vcpu x node 0", "vCPUs 0 to 1");
	refused("numa move vcpu 1 node 3", "no processor");
	refused("numa move vcpu 1 node 0", "cannot be moved");	/* its thread has not begun */
	refused("numa policy auto", "was not started");
	vm.placed.preferred = -1;
	refused("numa policy bind", "needs --membind");
	vm.vnuma.nr_vnodes = 2;
	refused("numa policy off", "--vnuma");
	refused("numa move vcpu 1 node 0", "--vnuma");
	vm = (struct vm){ 0 };
}

/* ---- the socket --------------------------------------------------------------------------------------------------- */

static int start(void **state)
{
	config = (struct vmm_config){ .control = path };
	vm = (struct vm){ .config = &config, .end_lock = PTHREAD_MUTEX_INITIALIZER };
	return control_start(&vm);
}

static int stop(void **state)
{
	control_stop(&vm);
	return access(path, F_OK) ? 0 : -1;
}

static int client(void)
{
	int fd;

	while ((fd = vmm_control_connect(path)) == -EAGAIN)	/* more wait than are let wait */
		usleep(1000);
	assert_true(fd >= 0);
	fcntl(fd, F_SETFL, 0);
	return fd;
}

static void say(int fd, const void *text, size_t n)
{
	assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

/* What comes until a newline or the end; at most ten seconds. */
static const char *hear(int fd)
{
	static char text[8192];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t n = 0;

	while (n < sizeof text - 1 && poll(&p, 1, 10000) == 1 && recv(fd, text + n, 1, 0) == 1 && text[n++] != '\n')
		;
	text[n] = 0;
	return text;
}

static void ends(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_true(recv(fd, &c, 1, 0) <= 0);
	close(fd);
}

static void conversation(void **state)
{
	int fd = client();
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	say(fd, "he", 2);
	say(fd, "lp\nnonsense\nhelp\r\n", 18);	/* several at once are answered in order */
	assert_non_null(strstr(hear(fd), "\"ok\":true"));
	assert_non_null(strstr(hear(fd), "no command 'nonsense'"));
	assert_non_null(strstr(hear(fd), "\"ok\":true"));
	close(fd);
}

static void endless_line(void **state)
{
	char many[2 * CONTROL_LINE_MAX];
	int fd = client();

	memset(many, 'x', sizeof many);
	say(fd, many, CONTROL_LINE_MAX);
	assert_non_null(strstr(hear(fd), "too long"));
	ends(fd);

	fd = client();		/* the longest that is allowed */
	memset(many, ' ', CONTROL_LINE_MAX);
	memcpy(many, "help", 4);
	many[CONTROL_LINE_MAX - 1] = '\n';
	say(fd, many, CONTROL_LINE_MAX);
	assert_non_null(strstr(hear(fd), "\"ok\":true"));
	close(fd);
}

/* One asks and asks and takes no answer, one never ends its line: others are served all the same, and after five seconds
 * these two are thrown out. */
static void deaf_and_slow(void **state)
{
	int deaf = client(), slow = client(), fd;
	char many[1000];

	say(slow, "he", 2);
	for (unsigned i = 0; i < sizeof many; i += 5)
		memcpy(many + i, "help\n", 5);
	fcntl(deaf, F_SETFL, O_NONBLOCK);
	for (unsigned i = 0; i < 10000 && send(deaf, many, sizeof many, MSG_NOSIGNAL) > 0; i++)
		;
	fd = client();
	say(fd, "help\n", 5);
	assert_non_null(strstr(hear(fd), "\"ok\":true"));
	close(fd);
	ends(slow);
	sleep(1);
	fcntl(deaf, F_SETFL, 0);
	while (recv(deaf, many, sizeof many, 0) > 0)	/* what was under way */
		;
	assert_true(send(deaf, "help\n", 5, MSG_NOSIGNAL) < 0);
	close(deaf);
}

static void crowd(void **state)
{
	int fds[200];

	for (unsigned i = 0; i < 200; i++) {
		fds[i] = client();
		say(fds[i], i % 3 ? "h" : "help\n", i % 3 ? 1 : 5);
	}
	say(fds[199], "elp\n", 4);
	assert_non_null(strstr(hear(fds[199]), "\"ok\":true"));
	for (unsigned i = 0; i < 200; i++)
		close(fds[i]);
}

static void noise(void **state)
{
	char bytes[4000];
	int fd;

	srand(1);
	for (unsigned round = 0; round < 200; round++) {
		fd = client();
		for (unsigned i = 0; i < sizeof bytes; i++)
			bytes[i] = rand() % 16 ? rand() : '\n';
		if (send(fd, bytes, rand() % sizeof bytes, MSG_NOSIGNAL) >= 0 && round % 2)
			hear(fd);
		close(fd);
	}
	fd = client();
	say(fd, "help\n", 5);
	assert_non_null(strstr(hear(fd), "\"ok\":true"));
	close(fd);
}

/* ---- its place ------------------------------------------------------------------------------------------------------ */

static int bound_socket(const char *where, bool listens)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", where);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	if (listens)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void places(void **state)
{
	char text[16] = "";
	int fd, null = open("/dev/null", O_WRONLY), err = dup(2);

	dup2(null, 2);			/* complaints are expected */
	fd = bound_socket(path, true);
	assert_int_equal(start(NULL), -EADDRINUSE);
	close(fd);			/* now it is a leftover */
	assert_int_equal(start(NULL), 0);
	assert_int_equal(stop(NULL), 0);

	fd = open(path, O_CREAT | O_RDWR, 0600);
	assert_int_equal(write(fd, "precious", 8), 8);
	assert_int_equal(start(NULL), -EEXIST);
	assert_int_equal(pread(fd, text, 8, 0), 8);
	assert_string_equal(text, "precious");
	close(fd);
	unlink(path);

	assert_int_equal(start(NULL), 0);
	unlink(path);			/* somebody else's stays */
	fd = bound_socket(path, false);
	control_stop(&vm);
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
	unlink(path);

	config.control = "/nonexistent/x.sock";
	assert_int_equal(control_start(&vm), -ENOENT);
	config.control = "";
	assert_int_equal(control_start(&vm), 0);
	assert_null(vm.control);
	dup2(err, 2);
	close(err);
	close(null);
}

static void found_by_others(void **state)
{
	struct vmm_socket found[8];
	char stale[128], other[128], umbra[80], mine[VMM_SOCKET_PATH];
	struct stat st;

	snprintf(umbra, sizeof umbra, "%s/umbra", dir);
	setenv("XDG_RUNTIME_DIR", dir, 1);
	config.control = NULL;
	assert_int_equal(vmm_control_default(mine), 0);
	assert_int_equal(stat(umbra, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	snprintf(stale, sizeof stale, "%s/4194000.sock", umbra);
	snprintf(other, sizeof other, "%s/notes.sock", umbra);
	close(bound_socket(stale, true));
	close(bound_socket(other, true));

	assert_int_equal(control_start(&vm), 0);
	assert_int_not_equal(access(stale, F_OK), 0);	/* removed at the start of the next */
	close(bound_socket(stale, true));
	unsigned n = vmm_control_find(found, 8), own = 0;
	for (unsigned i = 0; i < n; i++)
		own += found[i].pid == getpid() && !strcmp(found[i].path, mine);
	assert_int_equal(own, 1);
	assert_int_not_equal(access(stale, F_OK), 0);	/* and by who looks */
	assert_int_equal(access(other, F_OK), 0);	/* that is nothing of ours */
	control_stop(&vm);
	assert_int_not_equal(access(mine, F_OK), 0);

	chmod(umbra, 0777);				/* others could put theirs there: not used */
	assert_true(vmm_control_default(mine) != 0 || strncmp(mine, dir, strlen(dir)));
	unlink(other);
	rmdir(umbra);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words), cmocka_unit_test(requests), cmocka_unit_test(numa_requests),
		cmocka_unit_test_setup_teardown(conversation, start, stop),
		cmocka_unit_test_setup_teardown(endless_line, start, stop),
		cmocka_unit_test_setup_teardown(deaf_and_slow, start, stop),
		cmocka_unit_test_setup_teardown(crowd, start, stop),
		cmocka_unit_test_setup_teardown(noise, start, stop),
		cmocka_unit_test(places), cmocka_unit_test(found_by_others),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof path, "%s/x.sock", dir);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
