/* The recorder's life in the target: how a recording begins and ends, what fork() does to it, and the switch that turns it off. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "at_fork.h"
#include "recorder_private.h"
#include "system_calls.h"

unsigned char *leakline_same_process;
bool leakline_ask_pid;
int leakline_own_pid;

int leakline_parent_pid;
static enum leakline_how older = LEAKLINE_HOW_OLDER;
static enum leakline_mode mode = LEAKLINE_MODE_ATTACHED;

static int pid_now(void) { return (int)leakline_call0(SYS_getpid); }

bool leakline_is_other_process(void) { return pid_now() != leakline_own_pid; }

void leakline_memory_is_shared(void) { __atomic_store_n(&leakline_ask_pid, true, __ATOMIC_RELAXED); }

/* --- facts about this process */

/* Reads a small file; the length, or minus the errno. */
static long read_file(const char *path, char *text, size_t room) {
    long file = leakline_call4(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return file;
    long length = leakline_call3(SYS_read, file, (long)text, (long)room - 1);
    leakline_call3(SYS_close, file, 0, 0);
    text[length > 0 ? length : 0] = '\0';
    return length;
}

/* Field 22 of /proc/self/stat; the name in field 2 may hold spaces and brackets, so count from the last bracket. */
static uint64_t start_time_ticks(void) {
    char text[1024];
    if (read_file("/proc/self/stat", text, sizeof text) <= 0)
        return 0;
    const char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    uint64_t ticks = 0;
    for (field = field ? field + 1 : ""; *field >= '0' && *field <= '9'; field++)
        ticks = ticks * 10u + (uint64_t)(*field - '0');
    return ticks;
}

static void describe_command(char *command, size_t room) {
    long length = read_file("/proc/self/cmdline", command, room);
    for (long i = 0; i + 1 < length; i++)
        if (command[i] == '\0')
            command[i] = ' ';
}

static uint64_t pid_namespace(void) { /* the link reads "pid:[4026531836]" */
    char text[64];
    long length = leakline_call4(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/ns/pid", (long)text, sizeof text);
    uint64_t inode = 0;
    for (long i = 0; i < length; i++)
        if (text[i] >= '0' && text[i] <= '9')
            inode = inode * 10u + (uint64_t)(text[i] - '0');
    return inode;
}

static uint32_t slots_wanted(void) {
    struct rlimit64 limit;
    if (leakline_call4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit) != 0 || limit.rlim_max > LEAKLINE_SLOTS_HIGHEST)
        return LEAKLINE_SLOTS_HIGHEST;
    return limit.rlim_max < 1024 ? 1024 : (uint32_t)limit.rlim_max;
}

/* --- the file's first words */

static void write_functions(void) {
    for (uint32_t function = 0; function < LEAKLINE_FUNCTIONS; function++) {
        const char *name = leakline_function_name(function);
        if (!name)
            continue;
        char *place = leakline_recording.base + LEAKLINE_FUNCTIONS_AT + function * LEAKLINE_FUNCTION_NAME;
        memcpy(place, name, strnlen(name, LEAKLINE_FUNCTION_NAME - 1u));
    }
}

static void write_header(void) {
    struct leakline_recording_header *header = leakline_header();
    header->version = LEAKLINE_RECORDING_VERSION;
    header->header_size = LEAKLINE_HEADER_SIZE;
    header->file_size = leakline_recording.size;
    header->functions = (struct leakline_section){LEAKLINE_FUNCTIONS_AT, LEAKLINE_FUNCTION_NAME, LEAKLINE_FUNCTIONS};
    header->libraries = (struct leakline_section){LEAKLINE_LIBRARIES_AT, sizeof(struct leakline_library_record), LEAKLINE_LIBRARIES};
    header->codes = (struct leakline_section){LEAKLINE_CODES_AT, sizeof(struct leakline_code_record), LEAKLINE_CODES};
    header->stacks = (struct leakline_section){LEAKLINE_STACKS_AT, sizeof(struct leakline_stack_record), LEAKLINE_STACKS};
    header->wrong_closes =
        (struct leakline_section){LEAKLINE_WRONG_CLOSES_AT, sizeof(struct leakline_wrong_close_record), LEAKLINE_WRONG_CLOSES};
    header->frames = (struct leakline_section){LEAKLINE_FRAMES_AT, 1, LEAKLINE_FRAMES_SIZE};
    header->text = (struct leakline_section){LEAKLINE_TEXT_AT, 1, LEAKLINE_TEXT_SIZE};
    header->slots = (struct leakline_section){LEAKLINE_SLOTS_AT, sizeof(struct leakline_slot), leakline_recording.slot_count};
    header->pid = leakline_own_pid;
    header->parent_pid = leakline_parent_pid;
    header->start_time_ticks = start_time_ticks();
    header->pid_namespace = pid_namespace();
    header->began_at_ns = leakline_now_ns();
    header->mode = mode;
    describe_command(header->command, sizeof header->command);
}

/* --- what is open already */

struct entry { /* linux_dirent64 */
    uint64_t inode;
    int64_t next;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int number_of(const char *name) {
    int number = 0;
    for (; *name >= '0' && *name <= '9'; name++)
        number = number * 10 + (*name - '0');
    return *name == '\0' ? number : -1;
}

/* Where there is no /proc (a chroot): asks for the lowest numbers. */
static void mark_open_without_proc(void) {
    for (int number = 0; number < 1024; number++)
        if (leakline_call3(SYS_fcntl, number, F_GETFD, 0) >= 0)
            leakline_mark_open(number, older);
}

static void mark_open(void) {
    char buffer[4096] __attribute__((aligned(8)));
    long folder = leakline_call4(SYS_openat, AT_FDCWD, (long)"/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (folder < 0) {
        mark_open_without_proc();
        return;
    }
    long length;
    while ((length = leakline_call3(SYS_getdents64, folder, (long)buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < length;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            int number = entry->name[0] == '.' ? -1 : number_of(entry->name);
            if (number >= 0 && number != folder)
                leakline_mark_open(number, older);
            at += entry->length;
        }
    }
    leakline_call3(SYS_close, folder, 0, 0);
}

/* --- beginning and end */

/* Made once a process, and kept for ever. */
static int map_same_process(void) {
    if (leakline_same_process)
        return 0;
    long page = leakline_call6(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page < 0 && page > -4096)
        return (int)page;
    long error = leakline_call3(SYS_madvise, page, 4096, MADV_WIPEONFORK);
    if (error)
        return (int)error;
    leakline_same_process = (unsigned char *)page;
    return 0;
}

/* Whether the file is what this very process wrote before it called exec. */
static bool is_our_own(const char *path) {
    struct leakline_recording_header header;
    long file = leakline_call4(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (file < 0)
        return false;
    long length = leakline_call3(SYS_read, file, (long)&header, sizeof header);
    leakline_call3(SYS_close, file, 0, 0);
    return length == sizeof header && memcmp(header.magic, LEAKLINE_RECORDING_MAGIC, sizeof header.magic) == 0 &&
           header.pid == leakline_own_pid && header.start_time_ticks == start_time_ticks();
}

static int map_recording(const char *path) {
    leakline_recording.slot_count = leakline_recording.base ? leakline_recording.slot_count : slots_wanted();
    uint64_t size = LEAKLINE_FILE_SIZE(leakline_recording.slot_count);
    int error = leakline_storage_map(path, size);
    if (error == -EEXIST && is_our_own(path)) {
        leakline_call3(SYS_unlinkat, AT_FDCWD, (long)path, 0);
        error = leakline_storage_map(path, size);
    }
    return error && path ? leakline_storage_map(NULL, size) : error;
}

static void after_fork_in_child(void);

int leakline_recording_begin(const char *path) {
    static bool prepared;
    if (leakline_bracket_is_on())
        return -EALREADY;
    leakline_own_pid = pid_now();
    int error = map_same_process();
    if (!error)
        error = map_recording(path);
    if (error)
        return error;
    leakline_libraries_forget();
    leakline_codes_forget();
    leakline_python_forget();
    leakline_unwind_forget();
    write_functions();
    write_header();
    *leakline_same_process = 1;
    if (!__atomic_exchange_n(&prepared, true, __ATOMIC_ACQ_REL)) {
        leakline_unwind_prepare();
        leakline_python_prepare();
        leakline_at_fork(NULL, NULL, after_fork_in_child);
    }
    leakline_bracket_start(true);
    mark_open();
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(leakline_header()->magic, LEAKLINE_RECORDING_MAGIC, 8);
    return 0;
}

void leakline_recording_end(void) {
    if (!leakline_bracket_is_on())
        return;
    leakline_bracket_start(false);
    leakline_header()->ended_at_ns = leakline_now_ns();
    leakline_storage_unmap();
}

void leakline_recording_fail(const char *because) {
    leakline_bracket_start(false);
    struct leakline_recording_header *header = leakline_header();
    if (!header || !*leakline_same_process)
        return;
    memcpy(header->off_because, because, strnlen(because, sizeof header->off_because - 1u));
    __atomic_store_n(&header->off, 1, __ATOMIC_RELEASE);
}

/* --- launch */

struct path {
    char *text;
    size_t length, room;
};

static void add(struct path *path, const char *text, size_t length) {
    if (path->length + length < path->room)
        memcpy(path->text + path->length, text, length);
    path->length += length;
}

static void add_number(struct path *path, uint64_t value) {
    char digits[24], *digit = digits + sizeof digits;
    do
        *--digit = (char)('0' + value % 10u);
    while (value /= 10u);
    add(path, digit, (size_t)(digits + sizeof digits - digit));
}

/* Of a path: %p is the pid, %t its start time in ticks; %c is nothing in the process that was launched, which has no recorded parent, and
 * .PID-TICKS in those that it starts; %% is a per cent sign. False: the path is too long. */
static bool expand(const char *pattern, char *text, size_t room) {
    struct path path = {.text = text, .room = room};
    for (; *pattern; pattern++) {
        char code = pattern[0] == '%' ? pattern[1] : '\0';
        if (code)
            pattern++;
        if (code == 'p') {
            add_number(&path, (uint64_t)leakline_own_pid);
        } else if (code == 't') {
            add_number(&path, start_time_ticks());
        } else if (code != 'c') {
            add(&path, pattern, 1);
        } else if (leakline_parent_pid != 0) {
            add(&path, ".", 1);
            add_number(&path, (uint64_t)leakline_own_pid);
            add(&path, "-", 1);
            add_number(&path, start_time_ticks());
        }
    }
    add(&path, "", 1);
    return path.length < room;
}

static void begin_as_asked(void) {
    char path[PATH_MAX];
    leakline_own_pid = pid_now();
    leakline_recording_begin(expand(leakline_asked.recording, path, sizeof path) ? path : NULL);
}

void leakline_start(void) {
    static bool started;
    if (__atomic_load_n(&started, __ATOMIC_RELAXED) || !environ || __atomic_exchange_n(&started, true, __ATOMIC_ACQ_REL))
        return;
    leakline_environment_take();
    leakline_bracket_start(false);
    int pid = pid_now();
    if (leakline_asked.recording[0] == '\0' || (leakline_asked.pid != pid && !leakline_asked.follow)) {
        leakline_asked.recording[0] = '\0';
        return;
    }
    leakline_parent_pid = leakline_asked.pid == pid ? leakline_asked.parent : (int)leakline_call0(SYS_getppid);
    mode = LEAKLINE_MODE_LAUNCHED;
    begin_as_asked();
}

/* --- fork */

static void begin_in_child(void) {
    if (leakline_sealed) { /* the filter holds for children too */
        leakline_bracket_start(false);
        leakline_asked.recording[0] = '\0';
        return;
    }
    leakline_parent_pid = leakline_own_pid;
    leakline_storage_forget(leakline_bracket_inside());
    leakline_bracket_start(false);
    leakline_bracket_forget();
    leakline_ask_pid = false;
    if (!leakline_asked.follow) {
        leakline_asked.recording[0] = '\0';
        return;
    }
    older = LEAKLINE_HOW_INHERITED;
    begin_as_asked();
}

void leakline_child_late(void) { begin_in_child(); }

static void after_fork_in_child(void) {
    if (leakline_bracket_is_on())
        begin_in_child();
}

__attribute__((constructor)) static void begin_at_launch(void) { leakline_start(); }

/* At exit others' destructors still close descriptors, so it goes on. */
__attribute__((destructor)) static void mark_ended(void) {
    if (leakline_recording_on())
        leakline_header()->ended_at_ns = leakline_now_ns();
}
