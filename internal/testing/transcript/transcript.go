//go:build linux

// Package transcript has what hosts and agents of former versions said to each other, as text: so that a new host is tried with old agents, and a new agent with old hosts, without either.
//
// There are only three types to know: a [Transcript], which [Parse] reads and command record makes; an [Agent], which says what the recorded one said; and a [Host], which asks what
// the recorded one asked.
//
// # Caveats
//
// Ids are named ID1, ID2 and so on, and the directory that host and guest share is /DIR. Acknowledgements are in the text, and mean nothing when it is played.
package transcript

import (
	"bufio"
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Dir is what the directory that both share is called in a transcript.
const Dir = "/DIR"

// Transcript is what one version said.
type Transcript struct {
	Name   string
	Scenes []Scene
}

// Scene is the connections that one thing took, in order.
type Scene struct {
	Name  string
	Conns []Conn
}

// Conn is what was said on one connection, in order.
type Conn []Line

// Line is a request, an answer, or a frame.
type Line struct {
	Host    bool // It is the host's.
	Method  string
	Path    string // Of a request; empty for all else.
	Upgrade bool
	Status  int      // Of an answer; 0 for all else.
	Headers []string // Of an answer: those that begin with Microvm-.
	Body    string   // Of a request or an answer.
	Kind    wire.Kind
	Payload string // Of a frame.
	End     bool   // The agent ended the connection, and the host did not.
}

// kinds are the names of frames.
var kinds = map[wire.Kind]string{
	wire.Stdin: "stdin", wire.StdinEnd: "stdin-end", wire.Stdout: "stdout", wire.Stderr: "stderr", wire.StdoutEnd: "stdout-end", wire.StderrEnd: "stderr-end", wire.AckStdin: "ack-stdin",
	wire.AckStdout: "ack-stdout", wire.AckStderr: "ack-stderr", wire.Exited: "exited", wire.Done: "done", wire.Replaced: "replaced", wire.Resize: "resize", wire.Data: "data", wire.DataEnd: "data-end",
	wire.Incoming: "incoming", wire.Copied: "copied", wire.Event: "event", wire.At: "at",
}

// numbers are the kinds of frames whose payload is a number.
var numbers = []wire.Kind{wire.AckStdin, wire.AckStdout, wire.AckStderr, wire.Incoming}

// String returns the line as it is in the text.
func (l Line) String() string {
	side := "<"
	if l.Host {
		side = ">"
	}
	words := []string{side}
	switch {
	case l.End:
		words = append(words, "end")
	case l.Path != "":
		words = append(words, l.Method, l.Path)
		if l.Upgrade {
			words = append(words, "upgrade")
		}
		words = append(words, quote(l.Body))
	case l.Status != 0:
		words = append(words, strconv.Itoa(l.Status))
		for _, header := range l.Headers {
			words = append(words, strconv.Quote(header))
		}
		words = append(words, quote(l.Body))
	case slices.Contains(numbers, l.Kind) && len(l.Payload) == 8:
		words = append(words, kinds[l.Kind], strconv.FormatUint(binary.BigEndian.Uint64([]byte(l.Payload)), 10))
	default:
		words = append(words, kinds[l.Kind], quote(l.Payload))
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

// quote leaves JSON as it is. Of other texts many zeros are written as their number.
func quote(text string) string {
	if text == "" {
		return ""
	}
	if text[0] == '{' && json.Valid([]byte(text)) && !strings.ContainsRune(text, '\n') {
		return text
	}
	var parts []string
	for text != "" {
		at := strings.Index(text, strings.Repeat("\x00", 8))
		if at < 0 {
			at = len(text)
		}
		if at > 0 {
			parts = append(parts, strconv.Quote(text[:at]))
		}
		rest := strings.TrimLeft(text[at:], "\x00")
		if n := len(text) - at - len(rest); n > 0 {
			parts = append(parts, fmt.Sprintf("0*%d", n))
		}
		text = rest
	}
	return strings.Join(parts, " ")
}

// unquote reads what quote wrote.
func unquote(text string) (string, error) {
	if strings.HasPrefix(text, "{") {
		return text, nil
	}
	var b strings.Builder
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if count, ok := strings.CutPrefix(text, "0*"); ok {
			digits, rest, _ := strings.Cut(count, " ")
			n, err := strconv.ParseUint(digits, 10, 24)
			if err != nil {
				return "", err
			}
			b.WriteString(strings.Repeat("\x00", int(n)))
			text = rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", fmt.Errorf("%.40q: %w", text, err)
		}
		part, err := strconv.Unquote(quoted)
		if err != nil {
			return "", err
		}
		b.WriteString(part)
		text = text[len(quoted):]
	}
	return b.String(), nil
}

//go:embed testdata/*.txt
var recorded embed.FS

// All returns the transcripts of all versions that were recorded, by their names.
func All() ([]*Transcript, error) {
	files, err := fs.Glob(recorded, "testdata/*.txt")
	if err != nil {
		return nil, err
	}
	var all []*Transcript
	for _, file := range files {
		text, err := recorded.ReadFile(file)
		if err != nil {
			return nil, err
		}
		t, err := Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		t.Name = strings.TrimSuffix(path.Base(file), ".txt")
		all = append(all, t)
	}
	return all, nil
}

// Parse reads a text.
func Parse(text string) (*Transcript, error) {
	t := &Transcript{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		name, isScene := strings.CutPrefix(line, "== ")
		switch {
		case line == "", strings.HasPrefix(line, "#"):
			continue
		case isScene:
			t.Scenes = append(t.Scenes, Scene{Name: name})
			continue
		case len(t.Scenes) == 0:
			return nil, fmt.Errorf("line %d is in no scene", number)
		}
		l, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		s := &t.Scenes[len(t.Scenes)-1]
		if l.Path != "" {
			s.Conns = append(s.Conns, nil)
		}
		if len(s.Conns) == 0 {
			return nil, fmt.Errorf("line %d is on no connection", number)
		}
		s.Conns[len(s.Conns)-1] = append(s.Conns[len(s.Conns)-1], l)
	}
	return t, lines.Err()
}

func parseLine(text string) (l Line, err error) {
	side, rest, _ := strings.Cut(text, " ")
	if side != ">" && side != "<" {
		return l, fmt.Errorf("%.40q is nobody's", text)
	}
	l.Host = side == ">"
	word, rest, _ := strings.Cut(rest, " ")
	if status, failed := strconv.Atoi(word); failed == nil && status >= 100 && status <= 999 {
		l.Status = status
		for strings.HasPrefix(rest, `"Microvm-`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return l, err
			}
			header, err := strconv.Unquote(quoted)
			if err != nil {
				return l, err
			}
			l.Headers, rest = append(l.Headers, header), strings.TrimSpace(rest[len(quoted):])
		}
		l.Body, err = unquote(rest)
		return l, err
	}
	if word == "end" {
		l.End = true
		return l, nil
	}
	if slices.Contains([]string{"GET", "POST", "PUT", "DELETE"}, word) {
		l.Method = word
		l.Path, rest, _ = strings.Cut(rest, " ")
		if !strings.HasPrefix(l.Path, "/") || strings.ContainsFunc(l.Path, unicode.IsSpace) {
			return l, fmt.Errorf("path %.40q", l.Path)
		}
		if body, ok := strings.CutPrefix(rest, "upgrade"); ok {
			l.Upgrade, rest = true, strings.TrimSpace(body)
		}
		l.Body, err = unquote(rest)
		return l, err
	}
	for kind, name := range kinds {
		if name == word {
			l.Kind = kind
			if number, failed := strconv.ParseUint(rest, 10, 64); failed == nil && slices.Contains(numbers, kind) {
				l.Payload = string(binary.BigEndian.AppendUint64(nil, number))
				return l, nil
			}
			l.Payload, err = unquote(rest)
			return l, err
		}
	}
	return l, fmt.Errorf("%.40q is no frame", word)
}

// String returns the text, without names of its own for ids.
func (t *Transcript) String() string {
	var b strings.Builder
	for _, s := range t.Scenes {
		fmt.Fprintf(&b, "\n== %s\n", s.Name)
		for i, conn := range s.Conns {
			if i > 0 {
				b.WriteString("\n")
			}
			for _, line := range conn {
				b.WriteString(line.String() + "\n")
			}
		}
	}
	return b.String()
}

var randomID = regexp.MustCompile(`\b[A-Z2-7]{26}\b`)

// NameIDs gives the ids in a text names, in order.
func NameIDs(text string) string {
	names := map[string]string{}
	return randomID.ReplaceAllStringFunc(text, func(id string) string {
		if names[id] == "" {
			names[id] = fmt.Sprintf("ID%d", len(names)+1)
		}
		return names[id]
	})
}

// Features returns what the recorded agent had, as its answer to health says.
func (t *Transcript) Features() ([]string, error) {
	for _, s := range t.Scenes {
		for _, conn := range s.Conns {
			if conn[0].Path == wire.PathHealth && len(conn) > 1 {
				var h wire.Health
				err := json.Unmarshal([]byte(conn[1].Body), &h)
				return h.Features, err
			}
		}
	}
	return nil, fmt.Errorf("%s: nobody asked for its health", t.Name)
}
