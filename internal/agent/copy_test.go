//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// copy begins a request for files, and returns its connection when it is upgraded.
func (h *host) copy(path string, body any) (net.Conn, *bufio.Reader, *http.Response) {
	h.t.Helper()
	conn := h.dial()
	text, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, post(path, "Connection: Upgrade\r\nUpgrade: "+wire.Upgrade+"\r\n", string(text))); err != nil {
		h.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return conn, in, response
}

// result reads data until the end, and what the agent says of it.
func (h *host) result(in *bufio.Reader) (data []byte, result wire.CopiedResult) {
	h.t.Helper()
	r := wire.NewDataReader(in, wire.Copied)
	data, err := io.ReadAll(r)
	if err == nil {
		err = json.Unmarshal(r.Last(), &result)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return data, result
}

func TestFileRefusals(t *testing.T) {
	h := newHost(t, Options{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path   string
		body   any
		status int
		code   string
	}{
		"good":                    {wire.PathFilesRead, wire.FilesRead{Path: dir, Name: "d"}, 101, ""},
		"a good name of a tar":    {wire.PathFilesRead, wire.FilesRead{Path: dir, Name: "."}, 101, ""},
		"good raw":                {wire.PathFilesRead, wire.FilesRead{Path: dir + "/f", Raw: true}, 101, ""},
		"a relative path":         {wire.PathFilesRead, wire.FilesRead{Path: "etc", Name: "a"}, 400, wire.CodeInvalid},
		"no path":                 {wire.PathFilesWrite, wire.FilesWrite{}, 400, wire.CodeInvalid},
		"a NUL byte":              {wire.PathFilesWrite, wire.FilesWrite{Path: "/\x00"}, 400, wire.CodeInvalid},
		"a long path":             {wire.PathFilesStat, wire.FilesStat{Path: "/" + strings.Repeat("a", wire.MaxPath)}, 400, wire.CodeInvalid},
		"no name":                 {wire.PathFilesRead, wire.FilesRead{Path: dir}, 400, wire.CodeInvalid},
		"an absolute name":        {wire.PathFilesRead, wire.FilesRead{Path: dir, Name: "/a"}, 400, wire.CodeInvalid},
		"nothing there":           {wire.PathFilesRead, wire.FilesRead{Path: dir + "/none", Name: "a"}, 404, wire.CodeNotFound},
		"nothing there, raw":      {wire.PathFilesRead, wire.FilesRead{Path: dir + "/none", Raw: true}, 404, wire.CodeNotFound},
		"a directory, raw":        {wire.PathFilesRead, wire.FilesRead{Path: dir, Raw: true}, 400, wire.CodeInvalid},
		"a file as directory":     {wire.PathFilesRead, wire.FilesRead{Path: dir + "/f/", Name: "a"}, 400, wire.CodeInvalid},
		"a negative offset":       {wire.PathFilesRead, wire.FilesRead{Path: dir + "/f", Raw: true, Offset: -1}, 400, wire.CodeInvalid},
		"a list":                  {wire.PathFilesList, wire.FilesList{Path: dir}, 200, ""},
		"a list of a file":        {wire.PathFilesList, wire.FilesList{Path: dir + "/f"}, 400, wire.CodeInvalid},
		"a list of nothing":       {wire.PathFilesList, wire.FilesList{Path: dir + "/none"}, 404, wire.CodeNotFound},
		"a list of a relative":    {wire.PathFilesList, wire.FilesList{Path: "etc"}, 400, wire.CodeInvalid},
		"a status of nothing":     {wire.PathFilesStat, wire.FilesStat{Path: dir + "/none"}, 404, wire.CodeNotFound},
		"a status below a file":   {wire.PathFilesStat, wire.FilesStat{Path: dir + "/f/a"}, 400, wire.CodeInvalid},
		"a status that is a good": {wire.PathFilesStat, wire.FilesStat{Path: dir + "/f"}, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, response := h.copy(c.path, c.body)
			defer conn.Close()
			if response.StatusCode != c.status {
				t.Errorf("status %d, want %d", response.StatusCode, c.status)
			}
			var e wire.Error
			if c.code == "" {
				return
			}
			if err := json.NewDecoder(response.Body).Decode(&e); err != nil || e.Code != c.code {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
	for _, path := range []string{wire.PathFilesRead, wire.PathFilesWrite} {
		if status, text := h.ask("POST", path, "", fmt.Sprintf(`{"path": %q, "name": "a"}`, dir)); status != 400 || !strings.Contains(string(text), "Upgrade") {
			t.Errorf("without upgrade: %d, %s", status, text)
		}
	}
}

func TestAWriteThatFailsIsToldWhileItIsSent(t *testing.T) {
	h := newHost(t, Options{})
	conn, in, _ := h.copy(wire.PathFilesWrite, wire.FilesWrite{Path: t.TempDir(), Tar: true})
	if _, err := conn.Write(wire.Append(nil, wire.Data, []byte(strings.Repeat("no tar", 1000)))); err != nil {
		t.Fatal(err)
	}
	if _, result := h.result(in); result.Error == nil || result.Error.Code != wire.CodeInvalid {
		t.Errorf("%+v", result)
	}
	conn.Close()
}

// TestACopyThatReadsNothingEndsToo, as one of holes alone.
func TestACopyThatReadsNothingEndsToo(t *testing.T) {
	h := newHost(t, Options{})
	begun := make(chan bool)
	h.server.unpack = func(ctx context.Context, _ io.Reader, _ string, _ tree.PutOptions) (tree.Progress, error) {
		close(begun)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Second):
			t.Error("its context does not end")
		}
		return tree.Progress{}, ctx.Err()
	}
	h.copy(wire.PathFilesWrite, wire.FilesWrite{Path: t.TempDir(), Tar: true})
	<-begun
	h.server.EndCopies()
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	if n := len(h.server.copies); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestCopiesAreBoundedAndEnd(t *testing.T) {
	h := newHost(t, Options{})
	dir := t.TempDir()
	var ins []*bufio.Reader
	for range maxCopies {
		_, in, response := h.copy(wire.PathFilesWrite, wire.FilesWrite{Path: dir, Tar: true})
		if response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("status %d", response.StatusCode)
		}
		ins = append(ins, in)
	}
	if _, _, response := h.copy(wire.PathFilesWrite, wire.FilesWrite{Path: dir, Tar: true}); response.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more: status %d", response.StatusCode)
	}
	h.server.EndCopies()
	for _, in := range ins {
		if _, err := in.ReadByte(); err != io.EOF {
			t.Fatalf("a connection goes on: %v", err)
		}
	}
	if n := len(h.server.copies); n != 0 {
		t.Errorf("%d are left", n)
	}
	if _, _, response := h.copy(wire.PathFilesRead, wire.FilesRead{Path: dir, Name: "."}); response.StatusCode != http.StatusTooManyRequests {
		t.Errorf("after the end: status %d", response.StatusCode)
	}
}
