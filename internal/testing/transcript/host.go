//go:build linux

package transcript

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Dialer is a guest.Dialer.
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Host asks an agent what the recorded host asked, in a directory that both share, and compares the answers by what they mean.
type Host struct {
	Dialer Dialer
	Dir    string
}

// Play plays a scene; it returns what is answered otherwise.
func (h *Host) Play(ctx context.Context, s Scene) error {
	var asked []*asking
	defer func() {
		for _, a := range asked {
			a.conn.Close()
		}
	}()
	for i, conn := range s.Conns { // one is begun when the one before was answered, and goes on beside it when it is one on which the agent alone speaks
		a, err := h.ask(ctx, conn)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		asked = append(asked, a)
		if watches(conn[0].Path) {
			continue
		}
		if err := a.rest(); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	for i, a := range asked {
		if watches(a.recorded[0].Path) {
			if err := a.rest(); err != nil {
				return fmt.Errorf("connection %d: %w", i+1, err)
			}
		}
	}
	return nil
}

func watches(path string) bool { return path == wire.PathFilesWatch || path == wire.PathEvents }

// asking is a connection whose request was sent and answered.
type asking struct {
	conn     net.Conn
	in       *bufio.Reader
	recorded Conn
	dir      string
}

func (h *Host) here(text string) string { return strings.ReplaceAll(text, Dir, h.Dir) }

func (h *Host) ask(ctx context.Context, recorded Conn) (*asking, error) {
	conn, err := h.Dialer.Dial(ctx, wire.Port)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	first := recorded[0]
	request, err := http.NewRequest(first.Method, "http://agent"+first.Path, strings.NewReader(h.here(first.Body)))
	if err == nil && first.Upgrade {
		request.Header.Set("Connection", "Upgrade")
		request.Header.Set("Upgrade", wire.Upgrade)
	}
	if err == nil {
		err = request.Write(conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	a := &asking{conn: conn, in: bufio.NewReader(conn), recorded: recorded, dir: h.Dir}
	if len(recorded) > 1 && recorded[1].Status != 0 {
		if err := a.answer(request, recorded[1]); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return a, nil
}

// answer compares an answer's status, headers and body.
func (a *asking) answer(request *http.Request, want Line) error {
	response, err := http.ReadResponse(a.in, request)
	if err != nil {
		return err
	}
	if response.StatusCode != want.Status {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("status %d (%s), want %d", response.StatusCode, text, want.Status)
	}
	for _, header := range want.Headers {
		name, value, _ := strings.Cut(header, ": ")
		if err := means(response.Header.Get(name), value); err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
	}
	if want.Status == http.StatusSwitchingProtocols {
		return nil
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return means(a.there(string(text)), want.Body)
}

func (a *asking) there(text string) string { return strings.ReplaceAll(text, a.dir, Dir) }

// rest plays what follows, and compares what came.
func (a *asking) rest() error {
	defer a.conn.Close()
	heard := newHeard(a.in)
	want := map[wire.Kind]string{}
	for _, line := range a.recorded[min(2, len(a.recorded)):] {
		if line.End {
			break
		}
		if line.Host {
			payload := strings.ReplaceAll(line.Payload, Dir, a.dir)
			if _, err := a.conn.Write(wire.Append(nil, line.Kind, []byte(payload))); err != nil && !slices.Contains(acks, line.Kind) { // an agent that has said all does not wait for acks
				return fmt.Errorf("%s: %w", line, err)
			}
			continue
		}
		want[line.Kind] += line.Payload
		if err := heard.await(line); err != nil {
			return err
		}
	}
	for kind, payload := range want {
		if slices.Contains(acks, kind) {
			continue
		}
		got := ""
		if heard.text[kind] != nil {
			got = a.there(heard.text[kind].String())
		}
		if err := means(got, payload); err != nil {
			return fmt.Errorf("%s: %w", kinds[kind], err)
		}
	}
	return nil
}

// measured are fields whose values are another each time.
var measured = []string{"uptime_ns", "ready_ns", "started_ns", "at_ns", "skew_ns", "mtime_ns", "pid", "usage", "error", "uid", "gid", "mode", "boot"}

// means compares two texts by what they mean: JSON field by field, where more fields are no difference, and tars by what is in them.
func means(got, want string) error {
	if objects, ok := decode(want); ok {
		others, ok := decode(got)
		if !ok || len(others) < len(objects) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		for i, object := range objects {
			if err := same("", others[i], object); err != nil {
				return err
			}
		}
		return nil
	}
	if files, err := list(want); err == nil && len(files) > 0 {
		others, err := list(got)
		if err != nil || !maps.Equal(others, files) {
			return fmt.Errorf("a tar of %q, %w, want %q", others, err, files)
		}
		return nil
	}
	if got != want {
		return fmt.Errorf("%.200q, want %.200q", got, want)
	}
	return nil
}

// decode reads one object of JSON after another.
func decode(text string) (all []any, ok bool) {
	if !strings.HasPrefix(text, "{") {
		return nil, false
	}
	for decoder := json.NewDecoder(strings.NewReader(text)); ; {
		var value any
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return all, true
		}
		if err != nil {
			return nil, false
		}
		all = append(all, value)
	}
}

func same(at string, got, want any) error {
	switch want := want.(type) {
	case map[string]any:
		others, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v, want %v", at, got, want)
		}
		for key, value := range want {
			if slices.Contains(measured, key) {
				if _, ok := others[key]; !ok {
					return fmt.Errorf("%s.%s is away", at, key)
				}
				if _, text := value.(string); !text || key != "error" || at == "" {
					continue
				}
			}
			if err := same(at+"."+key, others[key], value); err != nil {
				return err
			}
		}
	case []any:
		others, ok := got.([]any)
		if !ok {
			return fmt.Errorf("%s is %v, want %v", at, got, want)
		}
		return sameList(at, others, want)
	default:
		if got != want {
			return fmt.Errorf("%s is %v, want %v", at, got, want)
		}
	}
	return nil
}

// sameList finds everything wanted, where there may be more: objects by their ids, all else as it is.
func sameList(at string, got, want []any) error {
	for _, value := range want {
		object, _ := value.(map[string]any)
		found := slices.ContainsFunc(got, func(other any) bool {
			others, ok := other.(map[string]any)
			return ok && object != nil && others["id"] == object["id"] && same(at, others, object) == nil || object == nil && same(at, other, value) == nil
		})
		if !found {
			return fmt.Errorf("%s is %v, without %v", at, got, value)
		}
	}
	return nil
}

// list returns what is in a tar, with its content.
func list(text string) (map[string]string, error) {
	files := map[string]string{}
	for reader := tar.NewReader(bytes.NewReader([]byte(text))); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return nil, err
		}
		files[header.Name] = fmt.Sprintf("%c %s %q", header.Typeflag, header.Linkname, content)
	}
}
