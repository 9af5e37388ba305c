/* Runs the tests of the native library, in a directory where they may make files. */
#include "tests.h"

int main(void) {
    test_descriptor_table();
    test_import_hook();
    return 0;
}
