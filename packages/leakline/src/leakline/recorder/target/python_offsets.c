/* From 3.13 on CPython describes itself: _PyRuntime begins with a table of the byte offsets of its structures, for debuggers.
 *
 * The table itself grows from version to version, so where each group of it begins is kept here; a table that does not make sense is
 * refused. Groups begin with the size of the structure, all words have 64 bits.
 */
#include "python_interpreter.h"

#include <string.h>

enum { COOKIE, VERSION, FREE_THREADED, RUNTIME, WORDS = 96 };
enum { FINALIZING = 1 };                                           /* in the group of the runtime */
enum { PREVIOUS_THREAD = 1, NEXT_THREAD, INTERPRETER, CURRENT_FRAME, THREAD_ID };
enum { PREVIOUS = 1, EXECUTABLE, INSTRUCTION, LOCALS, OWNER, STACK_POINTER, LOCAL_CODE };
enum { FILE_NAME = 1, NAME, QUALIFIED_NAME, LINE_TABLE, FIRST_LINE, ARGUMENTS, LOCAL_NAMES, LOCAL_KINDS, BYTE_CODE, LOCAL_CODES };
enum { TYPE = 1 };
enum { BYTES_LENGTH = 1, BYTES_DATA };
enum { TEXT_STATE = 1, TEXT_LENGTH, TEXT_ASCII };

struct groups {
    uint16_t minor;
    uint8_t thread, frame, code, object, bytes, text; /* first word of each */
    uint8_t local_codes;                              /* free-threaded builds keep a copy of the byte code for each thread */
    uint8_t tagged;                                   /* f_executable is a _PyStackRef: its low bits are no address */
};
static const struct groups known[] = {
    {.minor = 13, .thread = 19, .frame = 28, .code = 34, .object = 44, .bytes = 64, .text = 67},
    {.minor = 14, .thread = 22, .frame = 31, .code = 39, .object = 50, .bytes = 74, .text = 77, .local_codes = 1, .tagged = 7},
};

/* Each offset lies inside of its structure, and none is as long as to be something else. */
static bool group_fits(const uint64_t *group, const int *fields, size_t count) {
    if (group[0] < 16 || group[0] > 4096)
        return false;
    for (size_t i = 0; i < count; i++)
        if (group[fields[i]] + sizeof(uint64_t) > group[0] && fields[i] != OWNER)
            return false;
    return true;
}

static bool makes_sense(const uint64_t *words, const struct groups *groups) {
    static const int thread[] = {NEXT_THREAD, INTERPRETER, CURRENT_FRAME, THREAD_ID}, frame[] = {PREVIOUS, EXECUTABLE, INSTRUCTION, OWNER},
                     code[] = {FILE_NAME, NAME, QUALIFIED_NAME, LINE_TABLE, FIRST_LINE}, object[] = {TYPE};
    const uint64_t *text = words + groups->text, *bytes = words + groups->bytes, *owner = words + groups->frame + OWNER;
    const uint64_t head = words[groups->object];
    return group_fits(words + groups->thread, thread, 4) && group_fits(words + groups->frame, frame, 4) &&
           group_fits(words + groups->code, code, 5) && group_fits(words + groups->object, object, 1) &&
           *owner < words[groups->frame] && words[groups->code + BYTE_CODE] < words[groups->code] + 8 && head <= 64 &&
           bytes[BYTES_LENGTH] == head && bytes[BYTES_DATA] == head + 16 && text[TEXT_LENGTH] == head && text[TEXT_STATE] == head + 16 &&
           text[TEXT_ASCII] == head + 24 && words[RUNTIME + FINALIZING] < 65535;
}

static void fill(struct leakline_python_layout *layout, const uint64_t *words, const struct groups *groups) {
    const uint64_t *thread = words + groups->thread, *frame = words + groups->frame, *code = words + groups->code;
    const uint64_t *bytes = words + groups->bytes, *text = words + groups->text;
    const bool copies = words[FREE_THREADED] && groups->local_codes;
    *layout = (struct leakline_python_layout){
        .minor = groups->minor,
        .thread_frame = (uint16_t)thread[CURRENT_FRAME],
        .cframe_frame = LEAKLINE_PYTHON_NONE,
        .thread_next = (uint16_t)thread[NEXT_THREAD],
        .thread_interpreter = (uint16_t)thread[INTERPRETER],
        .thread_id = (uint16_t)thread[THREAD_ID],
        .interpreter_threads = LEAKLINE_PYTHON_NONE,
        .frame_previous = (uint16_t)frame[PREVIOUS],
        .frame_code = (uint16_t)frame[EXECUTABLE],
        .frame_instruction = (uint16_t)frame[INSTRUCTION],
        .frame_owner = (uint16_t)frame[OWNER],
        .frame_entry = LEAKLINE_PYTHON_NONE,
        .frame_copy = copies ? (uint16_t)frame[LOCAL_CODE] : LEAKLINE_PYTHON_NONE,
        .code_file = (uint16_t)code[FILE_NAME],
        .code_name = (uint16_t)code[QUALIFIED_NAME],
        .code_first_line = (uint16_t)code[FIRST_LINE],
        .code_lines = (uint16_t)code[LINE_TABLE],
        .code_bytes = (uint16_t)code[BYTE_CODE],
        .code_copies = copies ? (uint16_t)code[LOCAL_CODES] : LEAKLINE_PYTHON_NONE,
        .object_type = (uint16_t)words[groups->object + TYPE],
        .text_length = (uint16_t)text[TEXT_LENGTH],
        .text_state = (uint16_t)text[TEXT_STATE],
        .text_ascii = (uint16_t)text[TEXT_ASCII],
        .text_compact = (uint16_t)(text[TEXT_ASCII] + 16), /* and the length and address of its UTF-8 */
        .bytes_length = (uint16_t)bytes[BYTES_LENGTH],
        .bytes_data = (uint16_t)bytes[BYTES_DATA],
        .runtime_finalizing = (uint16_t)words[RUNTIME + FINALIZING],
        .entry = LEAKLINE_ENTRY_SHIM,
        .shim_owner = 3,
        .tagged = groups->tagged,
    };
}

bool leakline_python_described(const char *runtime, uint32_t version, struct leakline_python_layout *layout) {
    uint64_t words[WORDS];
    if (!runtime || memcmp(runtime, "xdebugpy", 8) != 0)
        return false;
    memcpy(words, runtime, sizeof words);
    if (words[VERSION] != version)
        return false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (version >> 16 == (0x0300u | known[i].minor) && makes_sense(words, &known[i])) {
            fill(layout, words, &known[i]);
            return true;
        }
    }
    return false;
}
