//go:build linux

package fakevmm

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// values are what a field is set to, whatever it should be.
var values = []string{
	"null", "true", "0", "1", "-1", "1.5", "2e1", "33", "300", "70000", "5000000000", `""`, `"x"`, `"a\"b"`, `"None"`, `"disk"`, `"V2"`, `"Async"`, `"2M"`, `"warning"`, `"!7"`, `"0123456789abcdef"`, `"Full"`, `"File"`, `"12:34:56:78:9a:bc"`, `"169.254.1.1"`, `"8.8.8.8"`, "[]",
	"[1]", `["x"]`, `["eth0",]`, "{}", `{"x":1}`, `{"bandwidth":{"size":1}}`, `{"ops":{"size":1,"refill_time":1,"more":1}}`, `{"bandwidth":{"size":1,"refill_time":-1}}`,
	`{"bandwidth":[1,2]}`, `{"bandwidth":null,"ops":[1,null,3]}`, `{"backend_type":"File"}`, `{"backend_type":"none","backend_path":"x"}`, "nul", "01", "tru", "}", ",",
}

// A field of another kind, or out of its range, is refused by both in the same words, at the same place.
func TestRealFieldsAnswerAlike(t *testing.T) {
	l := newLab(t)
	release, err := Find(l.version)
	if err != nil {
		t.Fatal(err)
	}
	var all []call
	for _, c := range calls {
		key, _, err := release.find(c.method(), c.path)
		if err != nil || c.body == "" || key == "PUT /actions" {
			continue
		}
		fields, _ := release.fields(release.Routes[key].Body)
		for _, field := range fields {
			for _, value := range values {
				all = append(all, call{c.route, c.path, with(t, c.body, field, value)})
			}
		}
	}
	l.alike(t, all)
}

// with returns a body with a field set.
func with(t *testing.T, body, field, value string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatal(err)
	}
	fields[field] = json.RawMessage(value)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		parts = append(parts, `"`+name+`": `+string(fields[name]))
	}
	return "{" + strings.Join(parts, ",\n ") + "}"
}

// alike holds answers to single calls against each other.
func (l *lab) alike(t *testing.T, all []call) {
	t.Helper()
	inParallel(all, func(c call) {
		if real, fake := l.both(t, c); real != fake {
			t.Errorf("%s\nreal: %s\nfake: %s", c, real, fake)
		}
	})
}

// So is a body that ends too early, has a byte too many, says a thing twice or is no object.
func TestRealBrokenBodiesAnswerAlike(t *testing.T) {
	l := newLab(t)
	var all []call
	for _, c := range calls {
		if c.body == "" || c.route == "PUT /actions" && !strings.Contains(c.body, "Flush") {
			continue
		}
		bodies := []string{"null", "true", "7", `"x"`, "[]", "[1]", "[null]", `["x"]`, "[1,2,3,4,5,6,7,8,9,10,11]", c.body + "x", c.body + "\n\n}", " \n" + c.body + " ", c.body[:len(c.body)-1] + `,}`, " "}
		if inner := strings.Trim(c.body, "{}"); inner != "" {
			bodies = append(bodies, "{"+inner+","+inner+"}", "{"+inner+` "x":1}`, "{"+inner+`,"nonsense":1}`, "{"+inner+`,7:1}`, "["+inner+"]")
		}
		for i := range len(c.body) {
			bodies = append(bodies, c.body[:i])
		}
		for _, body := range bodies {
			if body != "" {
				all = append(all, call{c.route, c.path, body})
			}
		}
	}
	l.alike(t, all)
}
