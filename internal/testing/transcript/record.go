//go:build linux

package transcript

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Chunk is what one Read of a connection returned, as command record notes it.
type Chunk struct {
	Scene string
	Conn  int // Counted from 1.
	Host  bool
	Data  []byte
	End   bool // There is no more of the other side's.
}

// Make makes a transcript of chunks, in the order in which they were read. dir is the directory that host and guest shared.
func Make(chunks []Chunk, dir string) (*Transcript, error) {
	t := &Transcript{}
	var conns []int
	for _, c := range chunks {
		if slices.Contains(conns, c.Conn) {
			continue
		}
		conns = append(conns, c.Conn)
		conn, err := makeConn(chunks, c.Conn, dir)
		if err != nil {
			return nil, fmt.Errorf("scene %q, connection %d: %w", c.Scene, c.Conn, err)
		}
		if len(t.Scenes) == 0 || t.Scenes[len(t.Scenes)-1].Name != c.Scene {
			t.Scenes = append(t.Scenes, Scene{Name: c.Scene})
		}
		s := &t.Scenes[len(t.Scenes)-1]
		s.Conns = append(s.Conns, conn)
	}
	return t, nil
}

// placed is a line, and the chunk that its end came with.
type placed struct {
	line  Line
	chunk int
}

func makeConn(chunks []Chunk, number int, dir string) (Conn, error) {
	var all []placed
	for _, host := range []bool{true, false} {
		side := newSide(chunks, number, host)
		lines, err := side.lines(host)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	for i, c := range chunks {
		if c.Conn == number && c.End && len(all) > 0 && all[0].line.Upgrade {
			all = append(all, placed{Line{End: true}, i})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int { return cmp.Compare(a.chunk, b.chunk) })
	var conn Conn
	for _, p := range all {
		p.line.Body, p.line.Payload = strings.ReplaceAll(p.line.Body, dir, Dir), strings.ReplaceAll(p.line.Payload, dir, Dir)
		conn = append(conn, p.line)
	}
	return conn, nil
}

// side is what one side said on a connection.
type side struct {
	text  *bytes.Reader
	in    *bufio.Reader
	ends  []int // of chunks, in bytes
	chunk []int // which those are
}

func newSide(chunks []Chunk, number int, host bool) *side {
	s := &side{}
	var text []byte
	for i, c := range chunks {
		if c.Conn == number && c.Host == host && !c.End {
			text = append(text, c.Data...)
			s.ends, s.chunk = append(s.ends, len(text)), append(s.chunk, i)
		}
	}
	s.text = bytes.NewReader(text)
	s.in = bufio.NewReaderSize(s.text, 16)
	return s
}

// place returns the chunk that what was read last ended in.
func (s *side) place() int {
	read := int(s.text.Size()) - s.text.Len() - s.in.Buffered()
	for i, end := range s.ends {
		if read <= end {
			return s.chunk[i]
		}
	}
	return s.chunk[len(s.chunk)-1]
}

// lines reads a request or an answer, and frames.
func (s *side) lines(host bool) (all []placed, err error) {
	if s.text.Size() == 0 {
		return nil, nil
	}
	first := Line{Host: host}
	frames := false
	if host {
		frames, err = s.request(&first)
	} else {
		frames, err = s.answer(&first)
	}
	if err != nil {
		return nil, err
	}
	all = append(all, placed{first, s.place()})
	for reader := wire.NewReader(s.in); frames; {
		f, err := reader.Read()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		all = append(all, placed{Line{Host: host, Kind: f.Kind, Payload: string(f.Payload)}, s.place()})
	}
	return all, nil
}

func (s *side) request(l *Line) (frames bool, err error) {
	r, err := http.ReadRequest(s.in)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(r.Body)
	l.Method, l.Path, l.Upgrade, l.Body = r.Method, r.URL.Path, r.Header.Get("Upgrade") != "", string(body)
	return l.Upgrade, err
}

func (s *side) answer(l *Line) (frames bool, err error) {
	r, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return false, err
	}
	l.Status = r.StatusCode
	for name := range r.Header {
		if strings.HasPrefix(name, "Microvm-") {
			l.Headers = append(l.Headers, name+": "+r.Header.Get(name))
		}
	}
	slices.Sort(l.Headers)
	if l.Status == http.StatusSwitchingProtocols {
		return true, nil
	}
	body, err := io.ReadAll(r.Body)
	l.Body = strings.TrimSuffix(string(body), "\n")
	return false, err
}
