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
	if got := s.output(4); got != "out\n" || s.exit().Code != 0 {
		t.Errorf("what was kept is %q", got)
	}
	h.age("old", keepEnded+time.Second)
	h.exec(wire.Exec{ID: "fresh", Argv: []string{"true"}}).exit()
	if h.process("old") == nil {
		t.Fatal("it was forgotten while a host was there")
	}
	s.conn.Close()
	if !until(func() bool { return old.attachedTo(nil) }) {
		t.Fatal("the host is still there")
	}
	h.exec(wire.Exec{ID: "newer", Argv: []string{"true"}}).exit()
	if h.process("old") != nil || h.process("live") == nil || h.process("new") == nil {
		t.Error("not the old one, or not only it, was forgotten")
	}
}

// age makes a process's end so long ago.
func (h *host) age(id string, age time.Duration) {
	p := h.process(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = time.Now().Add(-age)
}

// leave starts a process without attaching to it.
func (h *host) leave(e wire.Exec) (int, []byte) {
	h.t.Helper()
	e.Detached = true
	text, err := json.Marshal(e)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.ask("POST", wire.PathExec, "", string(text))
}

func TestADetachedProcessWaitsForAsLongAsThereIsRoom(t *testing.T) {
	h := newHost(t, Options{})
	for i, id := range []string{"first", "second", "live"} {
		argv := []string{"echo", id}
		if id == "live" {
			argv = []string{"sleep", "1000"}
		}
		status, text := h.leave(wire.Exec{ID: id, Argv: argv})
		var started wire.Started
		if err := json.Unmarshal(text, &started); err != nil || status != 200 || started.PID != h.process(id).child.pid {
			t.Fatalf("status %d, %s", status, text)
		}
		if id != "live" {
			if _, err := ended(h.process(id)); err != nil {
				t.Fatal(err)
			}
			h.age(id, time.Duration(10-i)*24*time.Hour)
		}
	}
	h.exec(wire.Exec{ID: "a", Argv: []string{"true"}}).exit()
	if h.process("first") == nil || h.process("second") == nil {
		t.Fatal("they were forgotten")
	}
	h.server.mu.Lock()
	for i := len(h.server.processes); i < maxProcesses; i++ {
		h.server.processes[fmt.Sprint("kept", i)] = &process{exited: make(chan struct{})}
	}
	h.server.mu.Unlock()
	h.exec(wire.Exec{ID: "b", Argv: []string{"true"}}).exit()
	if h.process("first") != nil || h.process("second") == nil || h.process("live") == nil {
		t.Error("not the one that ended first, or not only it, was forgotten")
	}
	s := h.exec(wire.Exec{ID: "second", Attach: true, Kept: true})
	if got := s.output(7); got != "second\n" || s.exit().Code != 0 {
		t.Errorf("%q", got)
	}
	h.server.mu.Lock()
	for id := range h.server.processes {
		if strings.HasPrefix(id, "kept") {
			delete(h.server.processes, id)
		}
	}
	h.server.mu.Unlock()
}

func TestAnIDIsTakenByWhoStartedIt(t *testing.T) {
	h := newHost(t, Options{})
	body := func(nonce string) string {
		return fmt.Sprintf(`{"id": "a", "nonce": %q, "argv": ["sleep", "1000"], "detached": true}`, nonce)
	}
	if status, text := h.ask("POST", wire.PathExec, "", body("one")); status != 200 {
		t.Fatalf("status %d, %s", status, text)
	}
	pid := h.process("a").child.pid
	if status, text := h.ask("POST", wire.PathExec, "", body("one")); status != 200 || h.process("a").child.pid != pid {
		t.Errorf("the same request again: status %d, %s", status, text)
	}
	for _, nonce := range []string{"two", ""} {
		if status, text := h.ask("POST", wire.PathExec, "", body(nonce)); status != http.StatusConflict || !strings.Contains(string(text), wire.CodeExists) {
			t.Errorf("another request: status %d, %s", status, text)
		}
	}
	if status, _ := h.ask("POST", wire.PathExec, "", body("../..")); status != http.StatusBadRequest {
		t.Errorf("a nonce that is none: status %d", status)
	}
}

func TestProcessesAreListed(t *testing.T) {
	h := newHost(t, Options{})
	list := func() (all wire.Processes) {
		t.Helper()
		status, text := h.ask("GET", wire.PathProcesses, "", "")
		if err := json.Unmarshal(text, &all); err != nil || status != 200 || len(text) > wire.MaxBody {
			t.Fatalf("status %d, %d bytes, %v", status, len(text), err)
		}
		return all
	}
	if all := list(); all.Processes == nil || len(all.Processes) != 0 {
		t.Errorf("%+v", all)
	}
	h.exec(wire.Exec{ID: "a", Argv: []string{"sh", "-c", "exit 3"}}).exit()
	s := h.exec(wire.Exec{ID: "b", Argv: []string{"sleep", "1000"}})
	all := list().Processes
	if len(all) != 2 || all[0].ID != "a" || all[1].ID != "b" {
		t.Fatalf("%+v", all)
	}
	if a := all[0]; a.Exit == nil || a.Exit.Code != 3 || a.Exit.Usage == nil || strings.Join(a.Argv, " ") != "sh -c exit 3" {
		t.Errorf("%+v", a)
	}
	if b := all[1]; b.Exit != nil || !b.Attached || b.PID != h.process("b").child.pid || b.Started < all[0].Started || b.Started > bootClock() || b.ArgvCut {
		t.Errorf("%+v", b)
	}
	s.conn.Close()
	if !until(func() bool { return !list().Processes[1].Attached }) {
		t.Error("a host that has gone is told as attached")
	}
}

func TestAFullListIsWithinTheBoundOfAnAnswer(t *testing.T) {
	s := New(Options{})
	for i := range maxProcesses {
		id := fmt.Sprintf("%064d", i)
		p := newProcess(&wire.Exec{ID: id, Nonce: id, Argv: []string{"<\x00\x01\u2028", strings.Repeat("\x00", 10_000), "a"}})
		p.child, p.attached = &child{pid: 1 << 22}, &attachment{}
		p.exit = wire.Exit{Code: 255, Signal: 64, TimedOut: true, Usage: &wire.Usage{User: 1 << 62, System: 1 << 62, MaxRSS: 1 << 62}}
		close(p.exited)
		s.processes[id] = p
	}
	text, err := json.Marshal(wire.Processes{Processes: s.listed()})
	if err != nil || len(text) > wire.MaxBody || len(s.listed()) != maxProcesses {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestCutArgv(t *testing.T) {
	long := strings.Repeat("ü", wire.MaxArgv)
	for _, tc := range []struct {
		argv []string
		want int // bytes that are kept
		cut  bool
	}{
		{[]string{"true"}, 4, false}, {[]string{"", ""}, 0, false}, {[]string{long}, wire.MaxArgv - 4, true}, {[]string{strings.Repeat("\x00", 1000)}, (wire.MaxArgv - 3) / 6, true},
		{[]string{strings.Repeat("a", wire.MaxArgv-3)}, wire.MaxArgv - 3, false}, {[]string{strings.Repeat("a", wire.MaxArgv-3), "b"}, wire.MaxArgv - 3, true},
		{make([]string, 1000), 0, true},
	} {
		kept, cut := cutArgv(tc.argv)
		all := strings.Join(kept, "")
		text, _ := json.Marshal(kept)
		if len(all) != tc.want || cut != tc.cut || len(text) > wire.MaxArgv+2 || !strings.HasPrefix(strings.Join(tc.argv, ""), all) {
			t.Errorf("%.20q: %d bytes are kept, cut %v; want %d, %v", tc.argv, len(all), cut, tc.want, tc.cut)
		}
	}
}
