package org.pocketfleet.core

/**
 * Whether a text is JSON (RFC 8259): `org.json` also reads much that is not, and recurses as deep as it is asked to.
 *
 * Two things more are refused: nesting deeper than [MOST_DEPTH], and an object that holds a name twice.
 */
internal class JsonGrammar private constructor(private val text: String) {
    private var at = 0

    private fun value(depth: Int) {
        if (depth > MOST_DEPTH) fail("nests deeper than $MOST_DEPTH")
        when (peek()) {
            '{' -> objectBody(depth)
            '[' -> arrayBody(depth)
            '"' -> string()
            't' -> word("true")
            'f' -> word("false")
            'n' -> word("null")
            else -> number()
        }
    }

    private fun objectBody(depth: Int) {
        val names = HashSet<String>()
        sequence('}') {
            if (peek() != '"') fail("needs a name in quotes")
            val start = at
            string()
            val name = text.substring(start, at)
            if (!names.add(name)) fail("holds the name ${name.take(TOLD_CHARACTERS)} twice")
            blank()
            expect(':')
            blank()
            value(depth + 1)
        }
    }

    private fun arrayBody(depth: Int) = sequence(']') { value(depth + 1) }

    private fun sequence(end: Char, item: () -> Unit) {
        at += 1
        blank()
        if (peek() == end) {
            at += 1
            return
        }
        while (true) {
            item()
            blank()
            if (peek() == end) break
            expect(',')
            blank()
        }
        at += 1
    }

    private fun string() {
        at += 1
        while (peek() != '"') {
            if (at >= text.length) fail("ends within a string")
            val char = text[at++]
            if (char < ' ') fail("has a control character in a string")
            if (char == '\\') escape()
        }
        at += 1
    }

    private fun escape() {
        val char = peek()
        at += 1
        if (char == 'u') {
            repeat(4) { if (peek() in HEXADECIMAL) at += 1 else fail("has a broken \\u escape") }
        } else if (char !in "\"\\/bfnrt") {
            fail("has an unknown escape")
        }
    }

    private fun number() {
        if (peek() == '-') at += 1
        if (peek() == '0') at += 1 else digits()
        if (peek() == '.') {
            at += 1
            digits()
        }
        if (peek() == 'e' || peek() == 'E') {
            at += 1
            if (peek() == '+' || peek() == '-') at += 1
            digits()
        }
    }

    private fun digits() {
        if (peek() !in '0'..'9') fail("needs a value")
        while (peek() in '0'..'9') at += 1
    }

    private fun word(word: String) {
        if (!text.startsWith(word, at)) fail("needs a value")
        at += word.length
    }

    private fun blank() {
        while (peek() in " \t\n\r") at += 1
    }

    private fun expect(char: Char) {
        if (peek() != char) fail("needs '$char'")
        at += 1
    }

    /** The next character; behind the last one, one that stands nowhere outside a string. */
    private fun peek(): Char = if (at < text.length) text[at] else END

    private fun fail(what: String): Nothing {
        val place = if (at >= text.length) "its end" else "character $at"
        throw FormatException("it is no JSON: it $what at $place")
    }

    companion object {
        /** Deeper than anything that is said here; a reader's stack holds it on any thread. */
        const val MOST_DEPTH = 32
        private const val TOLD_CHARACTERS = 100
        private const val END = '\u0000'
        private const val HEXADECIMAL = "0123456789abcdefABCDEF"

        /** @throws FormatException says what is wrong and where. */
        fun check(text: String) {
            val grammar = JsonGrammar(text)
            grammar.blank()
            grammar.value(1)
            grammar.blank()
            if (grammar.at < text.length) grammar.fail("goes on behind its value")
        }
    }
}
