/* SPDX-License-Identifier: MIT
 *
 * conf_toml.cc - the only C++ of the project: toml++ behind conf_toml.h.
 */
#include "core/conf_toml.h"

#include <cerrno>
#include <cstdio>
#include <new>
#include <string>
#include <string_view>

#include <toml++/toml.h>

namespace
{

using see_fn = void (*)(void *, const toml_entry *);

void emit(see_fn see, void *arg, const std::string &table, int index, const std::string &key,
          const toml::node &node)
{
    toml_entry e{};
    std::string text;
    e.table = table.c_str();
    e.index = index;
    e.key = key.c_str();
    e.line = static_cast<int>(node.source().begin.line);
    e.type = TOML_OTHER;
    if (const auto *s = node.as_string()) {
        text = s->get();
        e.type = TOML_STRING;
        e.string = text.c_str();
    } else if (const auto *i = node.as_integer()) {
        e.type = TOML_INTEGER;
        e.integer = i->get();
    } else if (node.is_floating_point()) {
        e.type = TOML_FLOAT;
    } else if (const auto *b = node.as_boolean()) {
        e.type = TOML_BOOLEAN;
        e.integer = b->get();
    } else if (node.is_table()) {
        e.type = TOML_TABLE;
    }
    see(arg, &e);
}

void walk_table(see_fn see, void *arg, const std::string &name, int index, const toml::table &t)
{
    emit(see, arg, name, index, "", t);
    for (const auto &[key, node] : t)
        emit(see, arg, name, index, std::string(key.str()), node);
}

void walk(see_fn see, void *arg, const toml::table &root)
{
    for (const auto &[key, node] : root) {
        const std::string name(key.str());
        const auto *array = node.as_array();
        if (const auto *t = node.as_table()) {
            walk_table(see, arg, name, -1, *t);
        } else if (array && array->is_array_of_tables()) {
            int i = 0;
            for (const auto &item : *array)
                walk_table(see, arg, name, i++, *item.as_table());
        } else {
            emit(see, arg, "", -1, name, node);
        }
    }
}

} // namespace

extern "C" int toml_walk(const char *text, size_t len, see_fn see, void *arg, char *error,
                         size_t error_cap, int *line)
{
    try {
        walk(see, arg, toml::parse(std::string_view(text, len)));
        return 0;
    } catch (const toml::parse_error &e) {
        *line = static_cast<int>(e.source().begin.line);
        std::snprintf(error, error_cap, "%.*s", static_cast<int>(e.description().size()),
                      e.description().data());
        return -EINVAL;
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    } catch (...) {
        *line = 0;
        std::snprintf(error, error_cap, "can't be parsed");
        return -EINVAL;
    }
}
