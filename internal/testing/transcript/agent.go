//go:build linux

package transcript

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// patience is how long either side may be waited for.
const patience = 20 * time.Second

// Agent is a guest.Dialer to an agent that says what the recorded one said, scene by scene. What that was not asked is as what it did not know: not found, in plain text.
type Agent struct {
	conns []Conn // of the present scene and, for what is asked again, of all

	mu      sync.Mutex
	played  map[int]bool
	serving sync.WaitGroup
}

// Agent returns the agent in one scene, with what it has said of its health.
func (t *Transcript) Agent(scene string) *Agent {
	a := &Agent{played: map[int]bool{}}
	for _, s := range t.Scenes {
		if s.Name == scene {
			a.conns = append(a.conns, s.Conns...)
		}
	}
	for _, s := range t.Scenes {
		if s.Conns[0][0].Path == wire.PathHealth {
			a.conns = append(a.conns, s.Conns[0])
			break
		}
	}
	return a
}

// Dial connects to the agent's port.
func (a *Agent) Dial(context.Context, uint32) (net.Conn, error) {
	host, agent := net.Pipe()
	agent.SetDeadline(time.Now().Add(patience))
	a.serving.Go(func() {
		defer agent.Close()
		a.serve(agent)
	})
	return host, nil
}

// Wait waits until all connections have ended.
func (a *Agent) Wait() { a.serving.Wait() }

func (a *Agent) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	request, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	recorded := a.find(request, string(body))
	if recorded == nil {
		const unknown = "404 page not found\n"
		fmt.Fprintf(conn, "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(unknown), unknown)
		return
	}
	heard := newHeard(in)
	for _, line := range recorded[1:] {
		switch {
		case line.End:
			return
		case line.Host:
			err = heard.await(line)
		case line.Status != 0:
			err = respond(conn, line)
		default:
			_, err = conn.Write(wire.Append(nil, line.Kind, []byte(line.Payload)))
		}
		if err != nil {
			return
		}
	}
	io.Copy(io.Discard, in) // the host ends it
}

func respond(w io.Writer, line Line) error {
	var head strings.Builder
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", line.Status, http.StatusText(line.Status))
	for _, header := range line.Headers {
		head.WriteString(header + "\r\n")
	}
	if line.Status == http.StatusSwitchingProtocols {
		head.WriteString("Connection: Upgrade\r\nUpgrade: " + wire.Upgrade + "\r\n")
	} else {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(line.Body))
	}
	_, err := io.WriteString(w, head.String()+"\r\n"+line.Body)
	return err
}

// find returns the connection that began with that request, one that was not played before others.
func (a *Agent) find(request *http.Request, body string) Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	var again Conn
	for i, conn := range a.conns {
		if conn[0].Method != request.Method || conn[0].Path != request.URL.Path || !asks(body, conn[0].Body) {
			continue
		}
		if !a.played[i] {
			a.played[i] = true
			return conn
		}
		again = conn
	}
	return again
}

// chosen are fields whose values are a host's own choice, and may be another each time.
var chosen = []string{"id", "nonce", "attempt", "boot", "name", "unix_ns", "entropy"}

// asks says whether a body asks for all that a recorded one asked for. What a newer host asks for beside that the agent would have ignored.
func asks(body, recorded string) bool {
	var got, want map[string]any
	if json.Unmarshal([]byte(recorded), &want) != nil || json.Unmarshal([]byte(body), &got) != nil {
		return body == recorded
	}
	for key, value := range want {
		if !slices.Contains(chosen, key) && fmt.Sprint(got[key]) != fmt.Sprint(value) {
			return false
		}
	}
	return true
}

// heard is what the other side says, frame by frame.
type heard struct {
	frames *wire.Reader
	text   map[wire.Kind]*strings.Builder // of data, as often as it came
	need   map[wire.Kind]int              // bytes of that, or frames
	have   map[wire.Kind]int
}

func newHeard(in *bufio.Reader) *heard {
	return &heard{frames: wire.NewReader(in), text: map[wire.Kind]*strings.Builder{}, need: map[wire.Kind]int{}, have: map[wire.Kind]int{}}
}

// streams are the kinds of frames whose payloads may be split in any way; acks those that mean nothing here.
var (
	streams = []wire.Kind{wire.Stdin, wire.Stdout, wire.Stderr, wire.Data}
	acks    = []wire.Kind{wire.AckStdin, wire.AckStdout, wire.AckStderr, wire.Resize}
)

// errEnd is a connection that ended before all that was recorded was said.
var errEnd = errors.New("the connection ended before")

// await waits until as much of a kind has come as was recorded.
func (h *heard) await(line Line) error {
	if slices.Contains(acks, line.Kind) {
		return nil
	}
	n := 1
	if slices.Contains(streams, line.Kind) {
		n = len(line.Payload)
	}
	h.need[line.Kind] += n
	for h.have[line.Kind] < h.need[line.Kind] {
		f, err := h.frames.Read()
		if err != nil {
			return fmt.Errorf("%w %q: %w", errEnd, line, err)
		}
		h.take(f)
	}
	return nil
}

func (h *heard) take(f wire.Frame) {
	if h.text[f.Kind] == nil {
		h.text[f.Kind] = &strings.Builder{}
	}
	h.text[f.Kind].Write(f.Payload)
	if slices.Contains(streams, f.Kind) {
		h.have[f.Kind] += len(f.Payload)
	} else {
		h.have[f.Kind]++
	}
}
