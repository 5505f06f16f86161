/* A plugin for QEMU's user emulation: how many instructions ran between one getppid(2) of the program and the next.
 *
 * The program asks for getppid where a count is to begin or to end; nothing else in it does. Each time one line with the
 * instructions since the last is written to QEMU's log. A translated block counts as a whole when it is entered.
 *
 * Declarations are QEMU's, API version 1 (QEMU 4.2 to 8.0; Debian 12 has 7.2), which has no header of its own in Debian.
 */
#include <inttypes.h>
#include <stdio.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t,
                                          void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_outs(const char *);

#define SHOWN __attribute__((visibility("default")))
enum { ADD_U64 = 0, GETPPID_ON_AARCH64 = 173 };

SHOWN int qemu_plugin_version = 1;
static uint64_t counted, reported;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &counted, qemu_plugin_tb_n_insns(block));
}

static void asked(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                  uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != GETPPID_ON_AARCH64) return;
    char line[64];
    snprintf(line, sizeof line, "instructions %" PRIu64 "\n", counted - reported);
    reported = counted;
    qemu_plugin_outs(line);
}

SHOWN int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, asked);
    return 0;
}
