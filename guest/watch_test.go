//go:build linux

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// watch watches a path until the test ends. next returns what is told next.
func watch(t *testing.T, d guest.Dialer, path string) (next func() (guest.FileEvent, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, err := guest.Watch(ctx, d, path)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	next, stop := pull(t, events)
	t.Cleanup(func() { cancel(); stop() })
	return next
}

// expectEvents reads as many events as are wanted.
func expectEvents(t *testing.T, next func() (guest.FileEvent, error), want ...guest.FileEvent) {
	t.Helper()
	for i, w := range want {
		if got, err := next(); err != nil || got != w {
			t.Fatalf("event %d: %+v, %v, want %+v", i, got, err, w)
		}
	}
}

func TestWatchOfADirectory(t *testing.T) {
	a := guesttest.New(t)
	dir, other := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	next := watch(t, a, dir)
	for _, step := range []struct {
		what string
		do   func() error
		want []guest.FileEvent
	}{
		{"a file", func() error { return os.WriteFile(at("f"), []byte("f"), 0o600) }, []guest.FileEvent{{Kind: guest.FileCreated, Name: "f"}, {Kind: guest.FileWritten, Name: "f"}}},
		{"a mode", func() error { return os.Chmod(at("f"), 0o644) }, []guest.FileEvent{{Kind: guest.FileAttributes, Name: "f"}}},
		{"a new name", func() error { return os.Rename(at("f"), at("g")) }, []guest.FileEvent{{Kind: guest.FileRenamed, Name: "g", From: "f"}}},
		{"a way out", func() error { return os.Rename(at("g"), other+"/g") }, []guest.FileEvent{{Kind: guest.FileRenamed, From: "g"}}},
		{"a way in", func() error { return os.Rename(other+"/g", at("h")) }, []guest.FileEvent{{Kind: guest.FileRenamed, Name: "h"}}},
		{"a directory", func() error { return os.Mkdir(at("d"), 0o700) }, []guest.FileEvent{{Kind: guest.FileCreated, Name: "d", Dir: true}}},
		{"a name that is no UTF-8", func() error { return os.Mkdir(at("\xff"), 0o700) }, []guest.FileEvent{{Kind: guest.FileCreated, Dir: true}}},
		{"what is below", func() error { return os.WriteFile(at("d/below"), nil, 0o600) }, nil},
		{"an end", func() error { return os.Remove(at("h")) }, []guest.FileEvent{{Kind: guest.FileRemoved, Name: "h"}}},
		{"the directory's mode", func() error { return os.Chmod(dir, 0o755) }, []guest.FileEvent{{Kind: guest.FileAttributes, Dir: true, Self: true}}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		t.Log(step.what)
		expectEvents(t, next, step.want...)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for {
		e, err := next()
		if err == io.EOF {
			t.Fatal("the watch ends without the directory's end")
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Self && e.Kind == guest.FileRemoved {
			break
		}
	}
	if e, err := next(); err != io.EOF {
		t.Errorf("behind the end: %+v, %v", e, err)
	}
}

func TestWatchOfAFile(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/f", nil, 0o600), os.Symlink("f", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	next := watch(t, a, dir+"/link")
	if err := errors.Join(os.WriteFile(dir+"/other", nil, 0o600), os.Chmod(dir, 0o700), os.WriteFile(dir+"/f", []byte("more"), 0o600), os.Rename(dir+"/other", dir+"/f"), os.Remove(dir+"/f")); err != nil {
		t.Fatal(err)
	}
	want := []guest.FileEvent{{Kind: guest.FileWritten, Name: "f"}, {Kind: guest.FileRenamed, Name: "f", From: "other"}, {Kind: guest.FileRemoved, Name: "f"}}
	expectEvents(t, next, want...)
	a.Cut()
	expectEvents(t, next, guest.FileEvent{Kind: guest.FileLost}) // also of a file that is not there now
	if err := os.WriteFile(dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expectEvents(t, next, guest.FileEvent{Kind: guest.FileCreated, Name: "f"})
}

func TestWatchSurvivesACutConnection(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	next := watch(t, a, dir)
	for i := range 3 {
		if err := os.Mkdir(fmt.Sprint(dir, "/", i), 0o700); err != nil {
			t.Fatal(err)
		}
		expectEvents(t, next, guest.FileEvent{Kind: guest.FileCreated, Name: fmt.Sprint(i), Dir: true})
		if a.Cut() == 0 {
			t.Error("nothing was cut")
		}
		expectEvents(t, next, guest.FileEvent{Kind: guest.FileLost})
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	a.Cut()
	for {
		if e, err := next(); err == io.EOF || errors.Is(err, guest.ErrNotFound) {
			return // told of before the cut, or not found behind it
		} else if err != nil {
			t.Fatalf("%+v, %v", e, err)
		}
	}
}

// TestWatchThatNobodyReads: what the guest's kernel does not keep is told as lost, once, and the watch goes on.
func TestWatchThatNobodyReads(t *testing.T) {
	a := guesttest.New(t)
	dir := t.TempDir()
	next := watch(t, a, dir)
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(text)) != "16384" {
		t.Skipf("this kernel keeps %s events, and the test is about 16384", text)
	}
	for i := range 12_000 {
		name := fmt.Sprint(dir, "/", i)
		if err := errors.Join(os.Mkdir(name, 0o700), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
	}
	lost := 0
	for events := 0; lost == 0; events++ {
		e, err := next()
		if err != nil || events > 24_000 {
			t.Fatalf("after %d events: %v", events, err)
		}
		if e.Kind == guest.FileLost {
			lost++
		}
	}
	if err := os.Mkdir(dir+"/last", 0o700); err != nil {
		t.Fatal(err)
	}
	expectEvents(t, next, guest.FileEvent{Kind: guest.FileCreated, Name: "last", Dir: true})
}

func TestWatchEnds(t *testing.T) {
	a := guesttest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := guest.Watch(ctx, a, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	next, stop := pull(t, events)
	defer stop()
	cancel()
	if e, err := next(); err != io.EOF {
		t.Errorf("after its context: %+v, %v", e, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if _, err := guest.Watch(ctx, a, t.TempDir()); err != nil { // and never iterated
		t.Fatal(err)
	}
	cancel()
	for _, path := range []string{"", "a\x00", "\xff", t.TempDir() + "/none"} {
		want := microvm.ErrInvalid
		if strings.HasSuffix(path, "/none") {
			want = guest.ErrNotFound
		}
		if _, err := guest.Watch(t.Context(), a, path); !errors.Is(err, want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestWatchesAreBounded(t *testing.T) {
	a := guesttest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range wire.MaxWatches {
		if _, err := guest.Events(ctx, a, nil); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, err := guest.Watch(ctx, a, "/"); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
}

// telling is an agent that upgrades and says frames.
func telling(frames ...[]byte) scripted {
	return func(conn net.Conn, request *http.Request) {
		defer conn.Close()
		if request.URL.Path == wire.PathHealth {
			io.WriteString(conn, answer(http.StatusOK, `{"protocol":1,"features":["watch","events"]}`))
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Upgrade)
		for _, frame := range frames {
			conn.Write(frame)
		}
	}
}

func frameEvent(text string) []byte { return wire.Append(nil, wire.Event, []byte(text)) }

func TestWatchOfALyingAgent(t *testing.T) {
	begin, end := frameEvent(`{"kind":"watching","dir":true}`), wire.Append(nil, wire.DataEnd, nil)
	for name, c := range map[string]struct {
		says [][]byte
		want error
	}{
		"the truth":               {[][]byte{begin, frameEvent(`{"kind":"created","name":"a","more":1}`), end}, nil},
		"no beginning":            {[][]byte{frameEvent(`{"kind":"created","name":"a"}`)}, guest.ErrAgent},
		"nothing but an end":      {[][]byte{end}, guest.ErrAgent},
		"another frame":           {[][]byte{begin, wire.Append(nil, wire.Stdout, nil)}, guest.ErrAgent},
		"no frame":                {[][]byte{begin, {255, 255, 255, 255, 255}}, guest.ErrAgent},
		"a path":                  {[][]byte{begin, frameEvent(`{"kind":"created","name":"../a"}`)}, guest.ErrAgent},
		"a path before":           {[][]byte{begin, frameEvent(`{"kind":"renamed","name":"a","from":"b/c"}`)}, guest.ErrAgent},
		"a long name":             {[][]byte{begin, frameEvent(`{"kind":"created","name":"` + strings.Repeat("a", 256) + `"}`)}, guest.ErrAgent},
		"a name that is a parent": {[][]byte{begin, frameEvent(`{"kind":"created","name":".."}`)}, guest.ErrAgent},
		"another kind":            {[][]byte{begin, frameEvent(`{"kind":"exploded"}`)}, guest.ErrAgent},
		"no JSON":                 {[][]byte{begin, frameEvent("\x1b[2J")}, guest.ErrAgent},
	} {
		t.Run(name, func(t *testing.T) {
			var failed error
			events, err := guest.Watch(t.Context(), telling(c.says...), "/a")
			if err == nil {
				for _, err := range events {
					failed = err
				}
			}
			err = errors.Join(err, failed)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err != nil && strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("%q", err)
			}
		})
	}
	if _, err := guest.Watch(t.Context(), oldAgent(t), "/a"); !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("an old agent: %v", err)
	}
	if _, err := guest.Events(t.Context(), oldAgent(t), nil); !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("an old agent: %v", err)
	}
}

// oldAgent knows health alone.
func oldAgent(t *testing.T) scripted {
	t.Helper()
	return func(conn net.Conn, request *http.Request) {
		defer conn.Close()
		if request.URL.Path == wire.PathHealth {
			io.WriteString(conn, answer(http.StatusOK, `{"protocol":1,"features":["copy"]}`))
			return
		}
		io.WriteString(conn, answer(http.StatusNotFound, "404 page not found\n"))
	}
}

func TestEventsOfTheSystem(t *testing.T) {
	a := guesttest.New(t)
	a.OOMKill(17, "hungry", "/box")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := guest.Events(ctx, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	next, stop := pull(t, events)
	defer stop()
	first, err := next()
	if err != nil || first.Type != guest.EventOOMKill || *first.OOM != (guest.OOMKill{PID: 17, Name: "hungry", Cgroup: "/box"}) || first.Seq != 1 || first.Boot == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	a.Disk("disk_low", 5, 100)
	a.Cut()
	a.Disk("disk_full", 0, 100)
	for i, want := range []guest.EventType{guest.EventDiskLow, guest.EventDiskFull} { // none lost, none doubled
		if e, err := next(); err != nil || e.Type != want || e.Seq != uint64(2+i) || e.Disk.Size != 100 || e.Boot != first.Boot {
			t.Fatalf("%+v, %v, want %s", e, err, want)
		}
	}
	a.Cut()
	for range wire.MaxKept + 10 {
		a.OOMKill(1, "many", "")
	}
	lost, err := next()
	if err == nil && lost.Type == guest.EventOOMKill { // the connection was made again in time for some
		t.Logf("the first of many is %d", lost.Seq)
	} else if err != nil || lost.Type != guest.EventLost || lost.Lost != 10 || lost.Seq != 13 {
		t.Fatalf("%+v, %v", lost, err)
	}
	after, err := guest.Events(ctx, a, &guest.EventsOptions{Boot: first.Boot, After: 3 + wire.MaxKept + 9})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range after {
		if err != nil || e.Seq != 3+wire.MaxKept+10 {
			t.Errorf("behind a given one: %+v, %v", e, err)
		}
		break
	}
	late, err := guest.Events(ctx, a, &guest.EventsOptions{Boot: "another", After: 5})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range late {
		if err != nil || e.Type != guest.EventLost || e.Lost != 13 {
			t.Errorf("behind one of another boot: %+v, %v", e, err)
		}
		break
	}
	if _, err := guest.Events(ctx, a, &guest.EventsOptions{Boot: "no id"}); !errors.Is(err, microvm.ErrInvalid) {
		t.Error(err)
	}
}

func TestEventsOfALyingAgent(t *testing.T) {
	good := `{"boot":"b","seq":1,"kind":"oom_kill","oom":{"pid":-1,"name":"\u001b[2J"}}`
	for name, c := range map[string]struct {
		says []string
		want error
	}{
		"the truth":             {[]string{good, `{"boot":"b","seq":2,"kind":"something new"}`}, nil},
		"a number again":        {[]string{good, good}, guest.ErrAgent},
		"a number before":       {[]string{`{"boot":"b","seq":9,"kind":"a"}`, good}, guest.ErrAgent},
		"no number":             {[]string{`{"boot":"b","kind":"a"}`}, guest.ErrAgent},
		"no boot":               {[]string{`{"seq":1,"kind":"a"}`}, guest.ErrAgent},
		"what only a host says": {[]string{`{"boot":"b","seq":1,"kind":"lost"}`}, guest.ErrAgent},
		"a number of another":   {[]string{`{"boot":"b","seq":-1,"kind":"a"}`}, guest.ErrAgent},
	} {
		t.Run(name, func(t *testing.T) {
			var frames [][]byte
			for _, text := range c.says {
				frames = append(frames, frameEvent(text))
			}
			events, err := guest.Events(t.Context(), telling(append(frames, wire.Append(nil, wire.DataEnd, nil))...), nil)
			if err != nil {
				t.Fatal(err)
			}
			for e, failed := range events {
				err = failed
				if e.OOM != nil && (e.OOM.PID != 0 || strings.ContainsRune(e.OOM.Name, '\x1b')) {
					t.Errorf("%+v", e.OOM)
				}
			}
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
