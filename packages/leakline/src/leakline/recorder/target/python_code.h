/* Code objects by content (python_code.c). Private to the python_*.c files. */
#ifndef LEAKLINE_PYTHON_CODE_H
#define LEAKLINE_PYTHON_CODE_H

#include "python_interpreter.h"
#include "python_reading.h"

/* Number of the code object at `code` (leakline_code() of recording.h); 0 if there is none, or no room for it. Any thread, no lock. */
uint32_t leakline_python_code(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code);
/* A new recording begins: what was numbered before has other numbers. */
void leakline_python_code_forget(void);

#endif
