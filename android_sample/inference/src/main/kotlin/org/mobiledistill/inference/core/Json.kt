package org.mobiledistill.inference.core

/**
 * A strict reader and writer of JSON (RFC 8259) without dependencies.
 *
 * Objects become [Map]s in the order of the document, arrays [List]s, whole numbers [Long], others [Double]. Refused are
 * keys that occur twice, text behind the document, and more than 64 levels.
 */
object Json {
    private const val DEEPEST = 64

    /** @throws JsonException with line and column. */
    fun parse(text: String): Any? = Reader(text).document()

    /** Any mix of Map, List, String, Boolean, Number and null as JSON with two spaces a level. */
    fun write(value: Any?): String = StringBuilder().also { append(it, value, "\n") }.append('\n').toString()

    private fun append(into: StringBuilder, value: Any?, line: String) {
        when (value) {
            null, is Boolean, is Int, is Long -> into.append(value)
            is Number -> {
                val number = value.toDouble()
                require(!number.isNaN() && !number.isInfinite()) { "JSON has no $number" }
                into.append(number)
            }
            is String -> quote(into, value)
            is Map<*, *> -> between(into, '{', '}', value.entries, line) { entry, deeper ->
                quote(into, entry.key as String)
                into.append(": ")
                append(into, entry.value, deeper)
            }
            is List<*> -> between(into, '[', ']', value, line) { each, deeper -> append(into, each, deeper) }
            else -> throw IllegalArgumentException("JSON has no ${value.javaClass.name}")
        }
    }

    private fun <T> between(
        into: StringBuilder,
        open: Char,
        close: Char,
        all: Collection<T>,
        line: String,
        each: (T, String) -> Unit,
    ) {
        into.append(open)
        var first = true
        for (one in all) {
            if (!first) into.append(',')
            first = false
            into.append(line).append("  ")
            each(one, "$line  ")
        }
        if (!first) into.append(line)
        into.append(close)
    }

    private fun quote(into: StringBuilder, text: String) {
        into.append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> into.append('\\').append(c)
                c == '\n' -> into.append("\\n")
                c < ' ' -> into.append("\\u").append(c.code.toString(16).padStart(4, '0'))
                else -> into.append(c)
            }
        }
        into.append('"')
    }

    private class Reader(private val text: String) {
        private var at = 0

        fun document(): Any? {
            val value = value(0)
            space()
            if (at < text.length) fail("text behind the document")
            return value
        }

        private fun value(level: Int): Any? {
            if (level > DEEPEST) fail("more than $DEEPEST levels")
            space()
            return when (peek()) {
                '{' -> map(level)
                '[' -> list(level)
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> number()
            }
        }

        private fun map(level: Int): Map<String, Any?> {
            val found = LinkedHashMap<String, Any?>()
            at++
            space()
            if (peek() == '}') {
                at++
                return found
            }
            while (true) {
                space()
                if (peek() != '"') fail("expected a key in quotes")
                val key = string()
                space()
                if (peek() != ':') fail("expected ':'")
                at++
                if (key in found) fail("the key '$key' occurs twice")
                found[key] = value(level + 1)
                if (!more('}')) return found
            }
        }

        private fun list(level: Int): List<Any?> {
            val found = ArrayList<Any?>()
            at++
            space()
            if (peek() == ']') {
                at++
                return found
            }
            while (true) {
                found.add(value(level + 1))
                if (!more(']')) return found
            }
        }

        private fun more(close: Char): Boolean {
            space()
            val next = peek()
            if (next != ',' && next != close) fail("expected ',' or '$close'")
            at++
            return next == ','
        }

        private fun string(): String {
            val found = StringBuilder()
            at++
            while (true) {
                val c = peek()
                at++
                when {
                    c == '"' -> return found.toString()
                    c == '\\' -> found.append(escaped())
                    c < ' ' -> fail("a control character in a string")
                    else -> found.append(c)
                }
            }
        }

        private fun escaped(): Char {
            val c = peek()
            at++
            return when (c) {
                '"', '\\', '/' -> c
                'b' -> '\b'
                'f' -> '\u000C'
                'n' -> '\n'
                'r' -> '\r'
                't' -> '\t'
                'u' -> {
                    if (at + 4 > text.length) fail("the document ends within a string")
                    val digits = text.substring(at, at + 4)
                    if (!digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) fail("expected 4 hex digits")
                    at += 4
                    digits.toInt(16).toChar()
                }
                else -> fail("an unknown escape '\\$c'")
            }
        }

        private fun number(): Any {
            val start = at
            if (here('-')) at++
            if (here('0')) at++ else digits()
            var whole = true
            if (here('.')) {
                whole = false
                at++
                digits()
            }
            if (here('e') || here('E')) {
                whole = false
                at++
                if (here('+') || here('-')) at++
                digits()
            }
            val found = text.substring(start, at)
            return (if (whole) found.toLongOrNull() else null) ?: found.toDouble()
        }

        private fun digits() {
            val start = at
            while (at < text.length && text[at] in '0'..'9') at++
            if (at == start) fail("expected a value")
        }

        private fun word(word: String, value: Boolean?): Boolean? {
            if (!text.startsWith(word, at)) fail("expected a value")
            at += word.length
            return value
        }

        private fun here(c: Char) = at < text.length && text[at] == c

        private fun peek(): Char = if (at < text.length) text[at] else fail("the document ends too early")

        private fun space() {
            while (at < text.length && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) at++
        }

        private fun fail(reason: String): Nothing {
            val before = text.substring(0, minOf(at, text.length))
            val line = before.count { it == '\n' } + 1
            throw JsonException("line $line, column ${before.length - before.lastIndexOf('\n')}: $reason")
        }
    }
}

/** Text that is no JSON; the message has line and column. */
class JsonException(message: String) : Exception(message)

/** An object of a JSON document, whose values are asked for by key and type; errors name the file and the key. */
class JsonObject(private val file: String, private val values: Map<*, *>, private val path: String = "") {
    fun has(key: String): Boolean = values[key] != null

    fun string(key: String): String = value(key, "a string")

    fun int(key: String): Int {
        val found: Long = value(key, "a whole number")
        if (found < Int.MIN_VALUE || found > Int.MAX_VALUE) wrong(key, "a whole number of 32 bits", found)
        return found.toInt()
    }

    fun number(key: String): Double = value<Number>(key, "a number").toDouble()

    fun <T : Any> optional(key: String, read: JsonObject.(String) -> T): T? = if (has(key)) read(key) else null

    fun child(key: String): JsonObject = JsonObject(file, value<Map<*, *>>(key, "an object"), "$path$key.")

    fun children(key: String): List<JsonObject> =
        value<List<*>>(key, "a list").mapIndexed { place, each ->
            JsonObject(file, each as? Map<*, *> ?: wrong("$key[$place]", "an object", each), "$path$key[$place].")
        }

    fun strings(key: String): List<String> =
        value<List<*>>(key, "a list").mapIndexed { n, each -> each as? String ?: wrong("$key[$n]", "a string", each) }

    fun ints(key: String): IntArray {
        val found = value<List<*>>(key, "a list")
        return IntArray(found.size) { (found[it] as? Long ?: wrong("$key[$it]", "a whole number", found[it])).toInt() }
    }

    fun lists(key: String): List<List<*>> =
        value<List<*>>(key, "a list").mapIndexed { n, each -> each as? List<*> ?: wrong("$key[$n]", "a list", each) }

    /** Keys and values as they stand in the document. */
    fun entries(): Map<*, *> = values

    /** Say that a key has a value that cannot be used. */
    fun wrong(key: String, expected: String, found: Any?): Nothing =
        throw ManifestException("$file: $path$key: found ${shown(found)}, expected $expected")

    /** Say that a key has another number of values than it should. */
    fun wrongCount(key: String, expected: Int, found: Int): Nothing =
        throw ManifestException("$file: $path$key: found $found values, expected $expected")

    private inline fun <reified T : Any> value(key: String, expected: String): T =
        values[key] as? T ?: wrong(key, expected, values[key])

    private fun shown(value: Any?): String = when (value) {
        null -> "nothing"
        is String -> "'${value.take(40)}'"
        else -> value.toString().take(40)
    }

    companion object {
        /**
         * @param file named in errors.
         * @throws ManifestException the text is no JSON object.
         */
        fun parse(file: String, text: String): JsonObject {
            val found = try {
                Json.parse(text)
            } catch (error: JsonException) {
                throw ManifestException("$file: ${error.message}", error)
            }
            return JsonObject(file, found as? Map<*, *> ?: throw ManifestException("$file: it is no JSON object"))
        }
    }
}
