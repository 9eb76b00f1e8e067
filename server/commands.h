// SPDX-License-Identifier: Apache-2.0
// The subcommands of the program. Each gets its own argv, whose argv[0] is "sora-server NAME", runs
// in the main thread and returns the exit code: 0 good, 1 the work failed, 2 wrong usage.
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

int cmd_serve(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_complete(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_keys(int argc, char **argv);

#endif
