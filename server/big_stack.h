// SPDX-License-Identifier: Apache-2.0
// CivetWeb's workers have stacks of 100 KB, fixed when Debian built it, most of which its own
// frames may use. A big_stack is a thread with a stack of its own size that runs calls on behalf of
// one worker, which waits meanwhile. Owned by its worker.
#ifndef SERVER_BIG_STACK_H
#define SERVER_BIG_STACK_H

struct big_stack;

struct big_stack *big_stack_create(void);        // NULL: no thread or memory to be had
void big_stack_destroy(struct big_stack *stack); // accepts NULL
// Runs task(context) on the big stack; returns when it has returned.
void big_stack_run(struct big_stack *stack, void (*task)(void *context), void *context);

#endif
