// SPDX-License-Identifier: Apache-2.0
// Memory in large pages is zeroed, aligned and writable to its last byte, of every size.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pages.h"

static void every_size_is_zeroed_and_writable(void **state)
{
    (void)state;
    const size_t large = (size_t)2 << 20;
    const size_t sizes[] = {1, 64, 4096, large - 1, large, large + 1, 3 * large + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *memory = pages_map(sizes[i]);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % (sizes[i] < large ? 64 : large), 0);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(memory[at], 0);
        memset(memory, 0xa5, sizes[i]);
        assert_int_equal(memory[sizes[i] - 1], 0xa5);
        pages_unmap(memory, sizes[i]);
    }
    pages_unmap(NULL, large);
}

static void a_size_that_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_null(pages_map(SIZE_MAX - 4096));
    struct pages_pool pool = {NULL};
    assert_null(pages_pool_take(&pool, SIZE_MAX - 8));
    pages_pool_deinit(&pool);
}

static void pieces_of_a_pool_lie_apart(void **state)
{
    (void)state;
    enum { PIECES = 9 };
    const size_t sizes[PIECES] = {1, 63, 64, 65, 40u << 20, 100, 40u << 20, 70u << 20, 5};
    struct pages_pool pool = {NULL};
    uint8_t *pieces[PIECES];
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = pages_pool_take(&pool, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 64, 0);
        assert_int_equal(pieces[i][0], 0);
        pieces[i][0] = pieces[i][sizes[i] - 1] = (uint8_t)(i + 1);
    }
    for (int i = 0; i < PIECES; i++) {
        assert_int_equal(pieces[i][0], i + 1);
        assert_int_equal(pieces[i][sizes[i] - 1], i + 1);
    }
    pages_pool_deinit(&pool);
    assert_null(pool.chunks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_zeroed_and_writable),
        cmocka_unit_test(a_size_that_cannot_be_is_refused),
        cmocka_unit_test(pieces_of_a_pool_lie_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
