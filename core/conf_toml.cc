/* SPDX-License-Identifier: MIT
 *
 * conf_toml.cc - toml++ behind conf_toml.h; the only C++ of the project.
 *
 * Threads: no state at all. On failure nothing is left behind: the parsed tree lives and dies
 * inside toml_walk, and every exception ends there.
 */
#include "core/conf_toml.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

/* toml++ asserts what it takes for granted about its input, too: "[[[" trips one where it is
 * compiled into this file and not a library. Let pass, each leads to an ordinary parse error. (With
 * NDEBUG some compilers would take them for promises: worse.) */
#undef NDEBUG
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>

namespace
{

/* toml++ bounds nested brackets, but each dot of a dotted key or header is a level too, and it
 * frees levels recursively: a hundred kilobytes of "a.a.a" would end the process by overflowing the
 * stack. So the dots are counted first. 4096 levels fit in a stack with ample room, and no sensible
 * file has so many dots. */
constexpr int DOTS_MAX = 4096;

using see_fn = void (*)(void *, const toml_entry *);

struct refused {
    int line;
    const char *reason;
};

/* Counts every dot that might be a level. Only those in lines that are nothing but comment are left
 * out: those can't be, in whatever state the parser is. (A character that some parser might take
 * for the end of a line ends the comment.) */
void check_depth(std::string_view text)
{
    int dots = 0, line = 1;
    bool blank = true, comment = false;
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        if (c == '\n') {
            line++;
            blank = true;
            comment = false;
        } else if (comment && (u >= 0x80 || (u < 0x20 && c != '\t'))) {
            comment = false;
        } else if (blank && c == '#') {
            comment = true;
            blank = false;
        } else if (c != ' ' && c != '\t') {
            blank = false;
        }
        if (c == '.' && !comment && ++dots > DOTS_MAX)
            throw refused{line, "too many dots outside of comments: keys nest too deeply"};
    }
}

toml_type type_of(const toml::node &node)
{
    switch (node.type()) {
    case toml::node_type::string:
        return TOML_STRING;
    case toml::node_type::integer:
        return TOML_INTEGER;
    case toml::node_type::floating_point:
        return TOML_FLOAT;
    case toml::node_type::boolean:
        return TOML_BOOLEAN;
    case toml::node_type::array:
        return TOML_ARRAY;
    case toml::node_type::table:
        return TOML_TABLE;
    default:
        return TOML_DATE;
    }
}

/* C strings end at the first NUL: "slots\u0000x" would pass for "slots". */
void check_text(const std::string &s, int line)
{
    if (s.find('\0') != std::string::npos)
        throw refused{line, "a NUL character can't be used"};
}

struct walker {
    see_fn see;
    void *arg;

    void emit(const std::string &table, int index, const std::string &key, const toml::node &node,
              int element = -1) const
    {
        toml_entry e{};
        e.element = element;
        e.table = table.c_str();
        e.index = index;
        e.key = key.c_str();
        e.line = static_cast<int>(node.source().begin.line);
        e.type = type_of(node);
        check_text(key, e.line);
        if (const auto *s = node.as_string()) {
            check_text(s->get(), e.line);
            e.string = s->get().c_str();
        } else if (const auto *i = node.as_integer()) {
            e.integer = i->get();
        } else if (const auto *b = node.as_boolean()) {
            e.integer = b->get();
        }
        const auto *array = element < 0 ? node.as_array() : nullptr;
        if (array)
            e.integer = static_cast<int64_t>(array->size());
        see(arg, &e);
        if (array) {
            int i = 0;
            for (const auto &item : *array)
                emit(table, index, key, item, i++);
        }
    }

    void table(const std::string &name, int index, const toml::table &t) const
    {
        check_text(name, static_cast<int>(t.source().begin.line));
        emit(name, index, "", t);
        for (const auto &[key, node] : t)
            emit(name, index, std::string(key.str()), node);
    }

    void root(const toml::table &top) const
    {
        for (const auto &[key, node] : top) {
            const std::string name(key.str());
            const auto *array = node.as_array();
            if (const auto *t = node.as_table()) {
                table(name, -1, *t);
            } else if (array && array->is_array_of_tables()) {
                int i = 0;
                for (const auto &item : *array)
                    table(name, i++, *item.as_table());
            } else {
                emit("", -1, name, node);
            }
        }
    }
};

} // namespace

extern "C" int toml_walk(const char *text, size_t len, see_fn see, void *arg, char *error,
                         size_t error_cap, int *line)
{
    *line = 0;
    std::snprintf(error, error_cap, "can't be parsed");
    try {
        const std::string_view view(text, len);
        check_depth(view);
        const toml::table top = toml::parse(view);
        walker{see, arg}.root(top);
        return 0;
    } catch (const refused &r) {
        *line = r.line;
        std::snprintf(error, error_cap, "%s", r.reason);
    } catch (const toml::parse_error &e) {
        const std::string_view what = e.description();
        *line = static_cast<int>(e.source().begin.line);
        std::snprintf(error, error_cap, "%.*s", static_cast<int>(what.size()), what.data());
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    } catch (...) {
    }
    return -EINVAL;
}
