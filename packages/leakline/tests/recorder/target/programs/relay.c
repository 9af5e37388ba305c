/* Calls back into Python: between the Python frames of two evaluations. */
__attribute__((noinline)) int relay(int (*call)(int), int number) {
    return call(number) + 1;
}
