//go:build linux

package fakevmm

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// reader reads JSON as serde_json does, as far as its complaints and their places go.
type reader struct {
	release *Release
	text    []byte
	at      int
}

// misread is what is wrong with a text, and behind which byte. The place is -1 while nobody has said it.
type misread struct {
	what string
	at   int
}

// here is a fault behind what was read.
func (p *reader) here(format string, args ...any) *misread {
	return &misread{fmt.Sprintf(format, args...), p.at}
}

// ahead is a fault of the next byte.
func (p *reader) ahead(what string) *misread { return &misread{what, min(len(p.text), p.at+1)} }

// peek skips white space and returns the next byte, or 0 at the end. A zero byte is as any other that nothing begins with.
func (p *reader) peek() byte {
	for ; p.at < len(p.text); p.at++ {
		if c := p.text[p.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return max(c, 1)
		}
	}
	return 0
}

// nextKey goes to the next key of an object, if it has one more.
func (p *reader) nextKey(first bool) (bool, *misread) {
	c := p.peek()
	comma := c == ',' && !first
	switch {
	case c == '}':
		return false, nil
	case c == 0:
		return false, p.ahead("EOF while parsing an object")
	case comma:
		p.at++
		c = p.peek()
	case !first:
		return false, p.ahead("expected `,` or `}`")
	}
	switch {
	case c == '"':
		return true, nil
	case c == '}':
		return false, p.ahead("trailing comma")
	case c == 0:
		return false, p.ahead("EOF while parsing a value")
	}
	return false, p.ahead("key must be a string")
}

// nextElement goes to the next element of a list, if it has one more.
func (p *reader) nextElement(first bool) (bool, *misread) {
	c := p.peek()
	switch {
	case c == ']':
		return false, nil
	case c == 0:
		return false, p.ahead("EOF while parsing a list")
	case first:
		return true, nil
	case c != ',':
		return false, p.ahead("expected `,` or `]`")
	}
	p.at++
	switch p.peek() {
	case ']':
		return false, p.ahead("trailing comma")
	case 0:
		return false, p.ahead("EOF while parsing a value")
	}
	return true, nil
}

func (p *reader) endObject() *misread {
	switch p.peek() {
	case '}':
		p.at++
		return nil
	case ',':
		return p.ahead("trailing comma")
	case 0:
		return p.ahead("EOF while parsing an object")
	}
	return p.ahead("trailing characters")
}

func (p *reader) endList() *misread {
	switch p.peek() {
	case ']':
		p.at++
		return nil
	case ',':
		p.at++
		if p.peek() == ']' {
			return p.ahead("trailing comma")
		}
	case 0:
		return p.ahead("EOF while parsing a list")
	}
	return p.ahead("trailing characters")
}

// value reads one of a shape.
func (p *reader) value(s shape) *misread {
	s = strings.TrimPrefix(s, "=")
	if rest, ok := strings.CutPrefix(s, "?"); ok {
		if p.peek() == 'n' {
			return p.word("null")
		}
		s = rest
	}
	if p.peek() == 0 {
		return p.ahead("EOF while parsing a value")
	}
	elem, list := strings.CutPrefix(s, "[]")
	opaque := strings.HasPrefix(s, "struct ")
	switch {
	case opaque && p.peek() != '{' && p.peek() != '[':
		return p.invalid(s)
	case opaque || s == "any":
		return p.skip()
	case list && p.peek() != '[':
		return p.invalid("a sequence")
	case list:
		p.at++
		bad := p.elements(elem)
		return p.closed(bad, p.endList())
	case strings.Contains(s, "|"):
		return p.variant(variants(s))
	case scalars[s] == "":
		_, bad := p.object(s)
		return bad
	}
	return p.scalar(s)
}

func (p *reader) elements(s shape) *misread {
	for first := true; ; first = false {
		more, bad := p.nextElement(first)
		if bad != nil || !more {
			return bad
		}
		if bad := p.value(s); bad != nil {
			return bad
		}
	}
}

func (p *reader) variant(all []string) *misread {
	if p.peek() == '{' { // an object that names the variant: none of them holds anything
		p.at++
		p.peek()
	}
	if p.peek() != '"' {
		return p.ahead("expected value")
	}
	text, bad := p.quoted()
	if bad == nil && !slices.Contains(all, text) {
		bad = p.here("unknown variant `%s`, %s", text, expected(all, ""))
	}
	return bad
}

func (p *reader) scalar(s shape) *misread {
	c := p.peek()
	switch {
	case s == "bool" && (c == 't' || c == 'f'):
		return p.skip()
	case (s[0] == 'u') && (c == '-' || '0' <= c && c <= '9'):
		return p.integer(s)
	case c == '"' && s != "bool" && s[0] != 'u':
		return p.words(s)
	}
	return p.invalid(scalars[s])
}

// integer reads one in the range of its type.
func (p *reader) integer(s shape) *misread {
	text, bad := p.number()
	if bad != nil {
		return bad
	}
	if strings.ContainsAny(text, ".eE") {
		return p.here("invalid type: %s, expected %s", number(text), s)
	}
	bits, err := strconv.Atoi(s[1:])
	if err != nil { // usize
		bits = 64
	}
	if _, err := strconv.ParseUint(text, 10, bits); err != nil {
		return p.here("invalid value: %s, expected %s", number(text), s)
	}
	return nil
}

// number says what kind of number a text is.
func number(text string) string {
	if !strings.ContainsAny(text, ".eE") {
		return "integer `" + text + "`"
	}
	f, _ := strconv.ParseFloat(text, 64)
	short := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(short, ".") {
		short += ".0"
	}
	return "floating point `" + short + "`"
}

// words reads a text that has to mean something.
func (p *reader) words(s shape) *misread {
	text, bad := p.quoted()
	if bad != nil {
		return bad
	}
	switch s {
	case "ip":
		if addr, err := netip.ParseAddr(text); err != nil || !addr.Is4() {
			return p.here("invalid IPv4 address syntax")
		}
	case "mac":
		if !isMAC(text) {
			return &misread{"The provided MAC address is invalid.", -1}
		}
	case "level":
		if !slices.Contains([]string{"off", "trace", "debug", "info", "warn", "warning", "error"}, strings.ToLower(text)) {
			return &misread{"Invalid LevelFilter", -1}
		}
	case "capability":
		if digits := strings.TrimPrefix(text, "!"); !isU32(digits) {
			return &misread{"Failed to parse string [" + text + "] as a kvm capability - can not convert to numeric: " + u32Fault(digits), -1}
		}
	}
	return nil
}

func isMAC(text string) bool {
	parts := strings.Split(text, ":")
	for _, part := range parts {
		if _, err := strconv.ParseUint(part, 16, 8); err != nil || len(part) != 2 {
			return false
		}
	}
	return len(parts) == 6
}

func isU32(digits string) bool {
	_, err := strconv.ParseUint(digits, 10, 32)
	return err == nil
}

func u32Fault(digits string) string {
	if digits == "" {
		return "cannot parse integer from empty string"
	}
	return "invalid digit found in string"
}

// invalid is the refusal of a value of another kind.
func (p *reader) invalid(want string) *misread {
	c := p.peek()
	kind := map[byte]string{'[': "sequence", '{': "map"}[c]
	if kind == "" {
		start := p.at
		if bad := p.skip(); bad != nil {
			return bad
		}
		text := string(p.text[start:p.at])
		switch c {
		case 'n':
			kind = "null"
		case 't', 'f':
			kind = "boolean `" + text + "`"
		case '"':
			kind = "string " + text
		default:
			kind = number(text)
		}
	}
	return p.here("invalid type: %s, expected %s", kind, want)
}

// skip reads any value.
func (p *reader) skip() *misread {
	switch c := p.peek(); {
	case c == 0:
		return p.ahead("EOF while parsing a value")
	case c == '"':
		_, bad := p.quoted()
		return bad
	case c == '-' || '0' <= c && c <= '9':
		_, bad := p.number()
		return bad
	case c == 'n':
		return p.word("null")
	case c == 't':
		return p.word("true")
	case c == 'f':
		return p.word("false")
	case c == '[':
		p.at++
		bad := p.elements("any")
		return p.closed(bad, p.endList())
	case c == '{':
		p.at++
		bad := p.anyFields()
		return p.closed(bad, p.endObject())
	}
	return p.ahead("expected value")
}

func (p *reader) anyFields() *misread {
	for first := true; ; first = false {
		more, bad := p.nextKey(first)
		if bad != nil || !more {
			return bad
		}
		if _, bad := p.quoted(); bad != nil {
			return bad
		}
		if _, bad := p.field("any"); bad != nil {
			return bad
		}
	}
}

// word reads one of JSON's three.
func (p *reader) word(want string) *misread {
	for i := range len(want) {
		if p.at == len(p.text) {
			return p.here("EOF while parsing a value")
		}
		p.at++
		if p.text[p.at-1] != want[i] {
			return p.here("expected ident")
		}
	}
	return nil
}

// quoted reads a string.
func (p *reader) quoted() (string, *misread) {
	start := p.at
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '\\':
			p.at++
		case c == '"':
			p.at++
			var text string
			if err := json.Unmarshal(p.text[start:p.at], &text); err != nil {
				return "", p.here("invalid escape")
			}
			return text, nil
		case c < ' ':
			p.at++
			return "", p.here(`control character (\u0000-\u001F) found while parsing a string`)
		}
	}
	p.at = len(p.text)
	return "", p.here("EOF while parsing a string")
}

// number reads one.
func (p *reader) number() (string, *misread) {
	start := p.at
	for p.at < len(p.text) && strings.IndexByte("+-.eE0123456789", p.text[p.at]) >= 0 {
		p.at++
	}
	text := string(p.text[start:p.at])
	if !json.Valid([]byte(text)) {
		return "", p.here("invalid number")
	}
	return text, nil
}
