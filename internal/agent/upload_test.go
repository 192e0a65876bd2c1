//go:build linux

package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// upload makes a connection for a copy, and reads where the agent is.
func (h *host) upload(request wire.FilesWrite) (net.Conn, *bufio.Reader, wire.Position) {
	h.t.Helper()
	conn, in, response := h.copy(wire.PathFilesWrite, request)
	if response.StatusCode != http.StatusSwitchingProtocols {
		h.t.Fatalf("status %d", response.StatusCode)
	}
	frame, err := wire.NewReader(in).Read()
	var at wire.Position
	if err == nil && frame.Kind == wire.At {
		err = json.Unmarshal(frame.Payload, &at)
	}
	if err != nil || frame.Kind != wire.At {
		h.t.Fatalf("kind %d, %v", frame.Kind, err)
	}
	return conn, in, at
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	if !until(so) {
		t.Fatalf("not so: %s", what)
	}
}

// names returns what is in a directory.
func names(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".copy-") {
			name = "part"
		}
		all = append(all, name)
	}
	return all
}

func (h *host) send(conn net.Conn, data []byte, end bool) {
	h.t.Helper()
	frames := wire.Append(nil, wire.Data, data)
	if end {
		frames = wire.Append(frames, wire.DataEnd, nil)
	}
	if _, err := conn.Write(frames); err != nil {
		h.t.Fatal(err)
	}
}

// oneFile is a tar with one file of 2,000 bytes, which begin at byte 512.
func oneFile(name string) []byte {
	header := fmt.Appendf(nil, "%-100s%-8s%-8s%-8s%-12s%-12s        0", name, "0000600\x00", "0000000\x00", "0000000\x00", "00000003720\x00", "00000000000\x00")
	for i, b := range header[:100] {
		if b == ' ' {
			header[i] = 0
		}
	}
	header = append(header, make([]byte, 512-len(header))...)
	copy(header[257:], "ustar\x0000")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(header, []byte(strings.Repeat("x", 2000))...), make([]byte, 48+1024)...)
}

func TestAnUploadOutlivesItsConnections(t *testing.T) {
	h := newHost(t, Options{})
	dir, text := t.TempDir(), oneFile("f")
	request := wire.FilesWrite{Path: dir, Tar: true, ID: "a", Attempt: 1}
	conn, _, at := h.upload(request)
	if at != (wire.Position{}) {
		t.Errorf("it begins at %+v", at)
	}
	h.send(conn, text[:512+700], false)
	eventually(t, "a part is there", func() bool { return slices.Equal(names(dir), []string{"part"}) })
	request.Attach, request.Attempt = true, 3 // the agent has not noticed yet that the connection is no more
	second, in, at := h.upload(request)
	if at.File != "f" || at.Offset != 700 || at.Size != 2000 {
		t.Errorf("it goes on at %+v", at)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the older connection goes on")
	}
	request.Attempt = 2
	late, lateIn, response := h.copy(wire.PathFilesWrite, request)
	if _, err := lateIn.ReadByte(); err == nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("one that comes late is served: %v", err)
	}
	late.Close()
	h.send(second, text, true)
	if _, result := h.result(in); result.Error != nil || result.Files != 1 || result.Bytes != 2000 {
		t.Errorf("%+v", result)
	}
	second.Close()
	request.Attempt = 4
	third, in, _ := h.copy(wire.PathFilesWrite, request) // the answer was lost
	if _, result := h.result(in); result.Error != nil || result.Files != 1 {
		t.Errorf("once more: %+v", result)
	}
	third.Close()
	if got := names(dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("%q", got)
	}
	eventually(t, "nothing is held", func() bool {
		h.server.mu.Lock()
		defer h.server.mu.Unlock()
		return len(h.server.copies) == 0 && len(h.server.uploads) == 0
	})
}

func TestUploadsEnd(t *testing.T) {
	for name, end := range map[string]func(h *host){
		"by the host's word": func(h *host) {
			if status, text := h.ask("POST", wire.PathFilesEnd, "", `{"id":"a"}`); status != http.StatusOK {
				h.t.Errorf("status %d: %s", status, text)
			}
		},
		"by themselves":         func(h *host) {},
		"with the agent's work": func(h *host) { h.server.EndCopies() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Options{})
			h.server.lease = time.Hour
			if name == "by themselves" {
				h.server.lease = time.Millisecond
			}
			dir := t.TempDir()
			conn, _, _ := h.upload(wire.FilesWrite{Path: dir, Tar: true, ID: "a"})
			h.send(conn, oneFile("f")[:1000], false)
			eventually(t, "a part is there", func() bool { return slices.Equal(names(dir), []string{"part"}) })
			conn.Close()
			end(h)
			eventually(t, "no part is left", func() bool { return len(names(dir)) == 0 })
		})
	}
}

func TestUploadRefusals(t *testing.T) {
	h := newHost(t, Options{})
	dir := t.TempDir()
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"good":                  {wire.PathFilesWrite, `{"path":"` + dir + `","tar":true,"id":"a"}`, 101},
		"no id":                 {wire.PathFilesWrite, `{"path":"` + dir + `","id":"../a"}`, 400},
		"one that is not there": {wire.PathFilesWrite, `{"path":"` + dir + `","id":"b","attach":true}`, 404},
		"no path":               {wire.PathFilesWrite, `{"id":"c"}`, 400},
		"a compare":             {wire.PathFilesCompare, `{"path":"` + dir + `"}`, 101},
		"a compare of no path":  {wire.PathFilesCompare, `{"path":"x"}`, 400},
		"an end of none":        {wire.PathFilesEnd, `{"id":"none"}`, 404},
		"a long name":           {wire.PathFilesRead, `{"path":"` + dir + `","name":".","have":"` + strings.Repeat("QUFB", 2000) + `"}`, 400},
	} {
		if status, text := h.ask("POST", c.path, wire.Upgrade, c.body); status != c.status {
			t.Errorf("%s: status %d: %s", name, status, text)
		}
	}
	if status, _ := h.ask("POST", wire.PathFilesWrite, "", `{"path":"`+dir+`","id":"d"}`); status != 400 {
		t.Errorf("without upgrade: status %d", status)
	}
	if all, _ := filepath.Glob(dir + "/*"); len(all) > 0 {
		t.Errorf("%v", all)
	}
}

func TestResultsAreBounded(t *testing.T) {
	h := newHost(t, Options{})
	dir := t.TempDir()
	for i := range maxResults + 5 {
		conn, in, _ := h.upload(wire.FilesWrite{Path: dir, Tar: true, ID: fmt.Sprint("a", i)})
		h.send(conn, make([]byte, 1024), true)
		h.result(in)
		conn.Close()
	}
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	if n := len(h.server.results); n != maxResults || h.server.results[0].id != "a5" {
		t.Errorf("%d are kept", n)
	}
}
