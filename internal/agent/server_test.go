//go:build linux

package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestRefusals(t *testing.T) {
	h := newHost(t, Options{})
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("no header"), 0o755); err != nil {
		t.Fatal(err)
	}
	exec := func(e wire.Exec) string {
		text, _ := json.Marshal(e)
		return string(text)
	}
	good := exec(wire.Exec{ID: "a", Argv: []string{"true"}})
	for _, tc := range []struct {
		name, path, upgrade, body string
		status                    int
		code, says                string
	}{
		{"no body", wire.PathExec, wire.Upgrade, "", 400, wire.CodeInvalid, "body"},
		{"no JSON", wire.PathExec, wire.Upgrade, "{", 400, wire.CodeInvalid, "body"},
		{"another type", wire.PathExec, wire.Upgrade, `{"id": 1}`, 400, wire.CodeInvalid, "body"},
		{"a body too large", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{strings.Repeat("a", wire.MaxBody)}}), 400, wire.CodeInvalid, "too large"},
		{"no upgrade", wire.PathExec, "", good, 400, wire.CodeInvalid, "Upgrade"},
		{"another upgrade", wire.PathExec, "websocket", good, 400, wire.CodeInvalid, "Upgrade"},
		{"no id", wire.PathExec, wire.Upgrade, exec(wire.Exec{Argv: []string{"true"}}), 400, wire.CodeInvalid, "id"},
		{"an id that leads elsewhere", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "../a", Argv: []string{"true"}}), 400, wire.CodeInvalid, "id"},
		{"an id too long", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: strings.Repeat("a", 65), Argv: []string{"true"}}), 400, wire.CodeInvalid, "id"},
		{"no program", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a"}), 400, wire.CodeInvalid, "no program"},
		{"a NUL byte", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{"true", "\x00"}}), 400, wire.CodeInvalid, "NUL"},
		{"a user that is no number", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{"true"}, User: "0:-1"}), 404, wire.CodeNotFound, `"-1"`},
		{"an argument too long", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{"true", strings.Repeat("a", 512<<10)}}), 400, wire.CodeInvalid, "too long"},
		{"a process to attach to that is not there", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Attach: true}), 404, wire.CodeNotFound, "process a"},
		{"a program that is not there", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{"/no/such"}}), 404, wire.CodeNotFound, "/no/such"},
		{"a program that is none", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{script}}), 403, wire.CodeDenied, "exec format"},
		{"a directory as program", wire.PathExec, wire.Upgrade, exec(wire.Exec{ID: "a", Argv: []string{"/usr"}}), 403, wire.CodeDenied, "/usr"},
		{"a signal to nobody", wire.PathSignal, "", `{"id": "a", "signal": 9}`, 404, wire.CodeNotFound, `"a"`},
		{"a shutdown", wire.PathShutdown, "", "", 403, wire.CodeDenied, "first process"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, text := h.ask("POST", tc.path, tc.upgrade, tc.body)
			var e wire.Error
			if err := json.Unmarshal(text, &e); err != nil || status != tc.status || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
				t.Errorf("status %d, %s; want %d, %s, %q", status, text, tc.status, tc.code, tc.says)
			}
		})
	}
	for path, method := range map[string]string{wire.PathExec: "GET", wire.PathHealth: "POST"} {
		if status, _ := h.ask(method, path, "", ""); status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: status %d", method, path, status)
		}
	}
	if h.process("a") != nil {
		t.Error("something was started")
	}
	if status, _ := h.ask("POST", wire.PathExec, wire.Upgrade, good); status != http.StatusSwitchingProtocols {
		t.Errorf("a good one: status %d", status)
	}
	for signal, want := range map[int]int{-1: 400, 0: 400, 65: 400, 1: 200, 64: 200} {
		if status, text := h.ask("POST", wire.PathSignal, "", fmt.Sprintf(`{"id": "a", "signal": %d}`, signal)); status != want {
			t.Errorf("signal %d: status %d, %s", signal, status, text)
		}
	}
	for _, path := range []string{wire.PathSync, wire.PathHealth} {
		if status, text := h.ask(map[bool]string{true: "GET", false: "POST"}[path == wire.PathHealth], path, "", ""); status != 200 {
			t.Errorf("%s: status %d, %s", path, status, text)
		}
	}
}

func TestShutdownIsCalledOnce(t *testing.T) {
	called := make(chan struct{}, 2)
	h := newHost(t, Options{Shutdown: func() { called <- struct{}{} }})
	for range 2 {
		if status, text := h.ask("POST", wire.PathShutdown, "", "{}"); status != 200 {
			t.Errorf("status %d, %s", status, text)
		}
	}
	<-called
	if len(called) != 0 {
		t.Error("it was called again")
	}
}

func TestProcessesAreBounded(t *testing.T) {
	h := newHost(t, Options{})
	h.server.mu.Lock()
	for i := range maxProcesses {
		h.server.processes[fmt.Sprint("kept", i)] = &process{exited: make(chan struct{})}
	}
	h.server.mu.Unlock()
	body := `{"id": "a", "argv": ["true"]}`
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, body); status != 429 || !strings.Contains(string(text), wire.CodeBusy) {
		t.Errorf("status %d, %s", status, text)
	}
	h.server.mu.Lock()
	clear(h.server.processes)
	h.server.mu.Unlock()
	if status, text := h.ask("POST", wire.PathExec, wire.Upgrade, body); status != http.StatusSwitchingProtocols {
		t.Errorf("with room: status %d, %s", status, text)
	}
}

func TestAnEndedProcessWaitsForItsHostButNotForEver(t *testing.T) {
	h := newHost(t, Options{})
	h.exec(wire.Exec{ID: "old", Argv: []string{"echo", "out"}}).conn.Close()
	h.exec(wire.Exec{ID: "live", Argv: []string{"sleep", "1000"}}).conn.Close()
	old := h.process("old")
	if _, err := ended(old); err != nil {
		t.Fatal(err)
	}
	h.exec(wire.Exec{ID: "new", Argv: []string{"true"}}).exit()
	s := h.exec(wire.Exec{ID: "old", Attach: true})
	if got := s.output(4); got != "out\n" || s.exit() != (wire.Exit{}) {
		t.Errorf("what was kept is %q", got)
	}
	s.conn.Close()
	old.mu.Lock()
	old.ended = time.Now().Add(-keepEnded - time.Second)
	old.mu.Unlock()
	h.exec(wire.Exec{ID: "newer", Argv: []string{"true"}}).exit()
	if h.process("old") != nil || h.process("live") == nil || h.process("new") == nil {
		t.Error("not the old one, or not only it, was forgotten")
	}
}
