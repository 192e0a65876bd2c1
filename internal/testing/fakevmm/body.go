//go:build linux

package fakevmm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const deserializing = "An error occurred when deserializing the json body of a request: "

// parseBody reads a body as the type that a route carries, and refuses what the real one does in its words.
func (r *Release) parseBody(name string, body []byte) (map[string]json.RawMessage, error) {
	p := &reader{release: r, text: body}
	values, bad := p.top(name)
	if bad == nil {
		return values, nil
	}
	return nil, p.tell(bad)
}

// jsonError is what is wrong with a text, and where. On line 0 it is nowhere.
type jsonError struct {
	what         string
	line, column int
}

func (e jsonError) Error() string {
	if e.line == 0 {
		return e.what
	}
	return fmt.Sprintf("%s at line %d column %d", e.what, e.line, e.column)
}

func (e jsonError) debug() string {
	return fmt.Sprintf("Error(%s, line: %d, column: %d)", quote(e.what), e.line, e.column)
}

// tell says where it is, as far as that is known.
func (p *reader) tell(bad *misread) error {
	if bad.at < 0 {
		return jsonError{what: bad.what}
	}
	before := p.text[:bad.at]
	return jsonError{bad.what, 1 + bytes.Count(before, []byte{'\n'}), len(before) - bytes.LastIndexByte(before, '\n') - 1}
}

func (p *reader) top(name string) (values map[string]json.RawMessage, bad *misread) {
	if len(p.release.Types[name]) == 0 {
		start := p.at
		if bad = p.skip(); bad == nil {
			json.Unmarshal(p.text[start:p.at], &values) // one that is no object is no use here
		}
	} else if p.peek() == 0 {
		return nil, p.ahead("EOF while parsing a value")
	} else {
		values, bad = p.object(name)
	}
	if bad == nil && p.peek() != 0 {
		bad = p.ahead("trailing characters")
	}
	return values, bad
}

// object reads a type's fields: as the names of an object, or out of a list.
func (p *reader) object(name string) (map[string]json.RawMessage, *misread) {
	switch p.peek() {
	case '{':
		p.at++
		values, bad := p.fields(name)
		return values, p.closed(bad, p.endObject())
	case '[':
		p.at++
		values, bad := p.list(name)
		return values, p.closed(bad, p.endList())
	}
	return nil, p.invalid(article(name))
}

// closed puts a fault that has no place yet behind what was read when it was found, and the end of the object or the list if that comes next.
func (p *reader) closed(bad, end *misread) *misread {
	if bad == nil {
		return end
	}
	if bad.at < 0 {
		bad.at = p.at
	}
	return bad
}

func (p *reader) fields(name string) (map[string]json.RawMessage, *misread) {
	all, required := p.release.fields(name)
	values, seen := map[string]json.RawMessage{}, map[string]bool{}
	for first := true; ; first = false {
		more, bad := p.nextKey(first)
		if bad != nil {
			return nil, bad
		}
		if !more {
			break
		}
		key, bad := p.quoted()
		if bad != nil {
			return nil, bad
		}
		known := slices.Contains(all, key)
		if !known && !slices.Contains(lax, name) {
			return nil, p.here("unknown field `%s`, %s", key, expected(all, "there are no fields"))
		}
		if seen[key] && known {
			return nil, &misread{fmt.Sprintf("duplicate field `%s`", key), -1}
		}
		seen[key] = true
		s := "any"
		if known {
			s = p.release.shape(name, key)
		}
		raw, bad := p.field(s)
		if bad != nil {
			return nil, bad
		}
		if string(raw) != "null" {
			values[key] = raw
		}
	}
	for _, field := range required {
		if !seen[field] {
			return nil, &misread{fmt.Sprintf("missing field `%s`", field), -1}
		}
	}
	return values, nil
}

// field reads a colon and a value.
func (p *reader) field(s shape) (json.RawMessage, *misread) {
	switch p.peek() {
	case ':':
		p.at++
	case 0:
		return nil, p.ahead("EOF while parsing an object")
	default:
		return nil, p.ahead("expected `:`")
	}
	p.peek()
	start := p.at
	bad := p.value(s)
	return p.text[start:p.at], bad
}

// list reads a type's fields by their order.
func (p *reader) list(name string) (map[string]json.RawMessage, *misread) {
	all, _ := p.release.fields(name)
	values := map[string]json.RawMessage{}
	for i, field := range all {
		s := p.release.shape(name, field)
		more, bad := p.nextElement(i == 0)
		if bad != nil {
			return nil, bad
		}
		if !more && strings.HasPrefix(s, "=") {
			continue
		}
		if !more {
			plural := "s"
			if len(all) == 1 {
				plural = ""
			}
			return nil, &misread{fmt.Sprintf("invalid length %d, expected %s with %d element%s", i, article(name), len(all), plural), -1}
		}
		p.peek()
		start := p.at
		if bad := p.value(s); bad != nil {
			return nil, bad
		}
		if raw := p.text[start:p.at]; string(raw) != "null" {
			values[field] = raw
		}
	}
	return values, nil
}

// expected lists names as the real one does.
func expected(names []string, none string) string {
	marked := make([]string, len(names))
	for i, name := range names {
		marked[i] = "`" + name + "`"
	}
	switch len(marked) {
	case 0:
		return none
	case 1:
		return "expected " + marked[0]
	case 2:
		return "expected " + marked[0] + " or " + marked[1]
	}
	return "expected one of " + strings.Join(marked, ", ")
}
