#include "base/base.h"
#include "expr/expr.h"

#include <stdlib.h>
#include <string.h>

static struct variable *find(const struct variables *variables, const char *name)
{
    for (size_t i = 0; i < variables->count; i++)
        if (strcmp(variables->all[i].name, name) == 0)
            return &variables->all[i];
    return NULL;
}

const double *variable_get(const struct variables *variables, const char *name)
{
    const struct variable *variable = find(variables, name);
    return variable ? &variable->value : NULL;
}

void variable_set(struct variables *variables, const char *name, double value)
{
    struct variable *variable = find(variables, name);
    if (!variable) {
        if (variables->count == variables->room) {
            variables->room = variables->room ? variables->room * 2 : 8;
            variables->all = must_grow(variables->all, variables->room, sizeof *variables->all);
        }
        variable = &variables->all[variables->count++];
        variable->name = must_copy(name, strlen(name));
    }
    variable->value = value;
}

void variables_free(struct variables *variables)
{
    for (size_t i = 0; i < variables->count; i++)
        free(variables->all[i].name);
    free(variables->all);
    *variables = (struct variables){0};
}
