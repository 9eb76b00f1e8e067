// SPDX-License-Identifier: Apache-2.0
// See big_stack.h.
#include "server/big_stack.h"

#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdlib.h>

#include "sora/limits.h"

struct big_stack {
    pthread_t thread;
    sem_t begin, done;
    void (*task)(void *context); // NULL: end
    void *context;
};

static void wait_on(sem_t *sem)
{
    while (sem_wait(sem) != 0)
        continue; // a signal
}

static void *run(void *context)
{
    struct big_stack *stack = context;
    pthread_setname_np(pthread_self(), "sora-http");
    for (;;) {
        wait_on(&stack->begin);
        if (stack->task == NULL)
            return NULL;
        stack->task(stack->context);
        sem_post(&stack->done);
    }
}

struct big_stack *big_stack_create(void)
{
    struct big_stack *stack = calloc(1, sizeof *stack);
    pthread_attr_t attr;
    if (stack == NULL)
        return NULL;
    sem_init(&stack->begin, 0, 0);
    sem_init(&stack->done, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, SORA_HTTP_STACK_BYTES);
    int failed = pthread_create(&stack->thread, &attr, run, stack);
    pthread_attr_destroy(&attr);
    if (failed == 0)
        return stack;
    sem_destroy(&stack->begin);
    sem_destroy(&stack->done);
    free(stack);
    return NULL;
}

void big_stack_destroy(struct big_stack *stack)
{
    if (stack == NULL)
        return;
    stack->task = NULL;
    sem_post(&stack->begin);
    pthread_join(stack->thread, NULL);
    sem_destroy(&stack->begin);
    sem_destroy(&stack->done);
    free(stack);
}

void big_stack_run(struct big_stack *stack, void (*task)(void *context), void *context)
{
    stack->task = task;
    stack->context = context;
    sem_post(&stack->begin);
    wait_on(&stack->done);
}
