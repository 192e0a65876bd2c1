//go:build linux

package transcript

import (
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestTranscriptsAreWhatTheySay(t *testing.T) {
	all, err := All()
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for _, one := range all {
		again, err := Parse(one.String())
		if err != nil || again.String() != one.String() || len(again.Scenes) < 5 {
			t.Errorf("%s: %v", one.Name, err)
		}
		if randomID.MatchString(one.String()) {
			t.Errorf("%s has ids without a name", one.Name)
		}
	}
}

func TestLinesThatAreNone(t *testing.T) {
	for text, ok := range map[string]bool{
		"== a\n> GET /v1/health\n< 200 {}": true, "== a\n> POST /a upgrade {}\n< 101\n< data \"a\" 0*9\n> ack-stdout 4\n< end": true,
		"> GET /v1/health": false, "== a\n< 200 {}": false, "== a\n> GET /a\nx": false, "== a\n> GET /a\n< nonsense": false, "== a\n> GET /a\n< data \"a": false, "== a\n> GET /a\n< data 0*x": false,
	} {
		if _, err := Parse(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		got, want string
		ok        bool
	}{
		{`{"code":3,"more":1}`, `{"code":3}`, true}, {`{"code":4}`, `{"code":3}`, false}, {`{}`, `{"code":3}`, false}, {`no`, `{}`, false}, {`{"pid":1}`, `{"pid":2}`, true}, {`{}`, `{"pid":2}`, false},
		{`{"features":["a","b"]}`, `{"features":["b"]}`, true}, {`{"features":["a"]}`, `{"features":["b"]}`, false}, {"out", "out", true}, {"out", "ou", false}, {`{"a":1}{"b":1}`, `{"a":1}{"b":2}`, false},
		{`{"processes":[{"id":"x","pid":1},{"id":"y","pid":2}]}`, `{"processes":[{"id":"y","pid":3}]}`, true}, {`{"processes":[{"id":"x","pid":1}]}`, `{"processes":[{"id":"y","pid":3}]}`, false},
	} {
		if err := means(c.got, c.want); (err == nil) != c.ok {
			t.Errorf("%s for %s: %v", c.got, c.want, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("== a\n> POST /a upgrade {}\n< 101 \"Microvm-A: b\"\n< data \"\\x00a\" 0*9 \"b\"\n> ack-stdout 4\n< end")
	f.Fuzz(func(t *testing.T, text string) {
		one, err := Parse(text)
		if err != nil || strings.Contains(text, "\r") {
			return
		}
		again, err := Parse(one.String())
		if err != nil || len(again.Scenes) != len(one.Scenes) {
			t.Errorf("%q becomes %q: %v", text, one, err)
		}
	})
}

func TestChunksInAnyParts(t *testing.T) {
	host := []byte("POST /v1/exec HTTP/1.1\r\nHost: agent\r\nUpgrade: x\r\nContent-Length: 14\r\n\r\n{\"dir\":\"/tmp\"}")
	agent := []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nMicrovm-Stdin: 0\r\n\r\n")
	out := wire.Append(nil, wire.Stdout, []byte("out"))
	var chunks []Chunk
	add := func(host bool, text []byte) {
		for _, b := range text {
			chunks = append(chunks, Chunk{Scene: "s", Conn: 1, Host: host, Data: []byte{b}})
		}
	}
	add(true, host)
	add(false, agent)
	add(false, out)
	add(true, wire.Append(nil, wire.Done, nil))
	chunks = append(chunks, Chunk{Scene: "s", Conn: 1, End: true})
	made, err := Make(chunks, "/tmp")
	const want = "\n== s\n> POST /v1/exec upgrade {\"dir\":\"/DIR\"}\n< 101 \"Microvm-Stdin: 0\"\n< stdout \"out\"\n> done\n< end\n"
	if err != nil || made.String() != want {
		t.Errorf("%q, %v", made, err)
	}
}
