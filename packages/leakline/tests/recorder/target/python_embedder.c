/* A program without Python that loads libpython later, runs code in it, ends it and unloads it again, twice. The recorder's walk is called at
 * each step, first with another generation of the loaded libraries where that changed, as the recorder itself does.
 * Arguments: the harness, libpython, the folder of python_probe.py.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin.h"

static struct leakline_origin origin;
static uint64_t generation;
static void (*capture_at)(struct leakline_origin *, uint64_t);
static uint32_t (*version)(void);

static void expect(const char *step, int count, uint32_t minor) {
    capture_at(&origin, generation);
    if (origin.python_count != count || origin.flags || version() >> 16 != (minor ? 0x0300u | minor : 0u)) {
        printf("%s: %d frames, flags %u, version %x\n", step, origin.python_count, origin.flags, version());
        exit(1);
    }
}

static void once(const char *library, const char *program, uint32_t minor) {
    void *python = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    if (!python) {
        printf("%s\n", dlerror());
        exit(1);
    }
    void (*begin)(void), (*end)(void);
    int (*run)(const char *);
    *(void **)&begin = dlsym(python, "Py_Initialize");
    *(void **)&end = dlsym(python, "Py_Finalize");
    *(void **)&run = dlsym(python, "PyRun_SimpleString");
    generation++;
    expect("loaded", 0, minor);
    begin();
    expect("initialised", 0, minor);
    if (run(program) != 0)
        exit(1);
    expect("after the program", 0, minor);
    end();
    expect("finalised", 0, minor);
    dlclose(python);
    generation++;
    capture_at(&origin, generation); /* glibc may keep it loaded: then it is still known */
    if (origin.python_count || origin.flags)
        exit(1);
}

int main(int count, char **arguments) {
    void *harness = count > 3 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    if (!harness)
        return 2;
    *(void **)&capture_at = dlsym(harness, "capture_at");
    *(void **)&version = dlsym(harness, "version");
    expect("without Python", 0, 0);
    uint32_t minor = (uint32_t)atoi(strstr(arguments[2], "libpython3.") + strlen("libpython3."));
    once(arguments[2], arguments[3], minor);
    once(arguments[2], arguments[3], minor);
    puts("done");
    return 0;
}
