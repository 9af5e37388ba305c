/* Hooks on one library's import table. */
typedef int leakline_hook_unit;
