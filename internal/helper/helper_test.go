//go:build linux

package helper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/helper"
)

// bounded is a context for a test's calls.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// directory is one whose helpers end with the test.
func directory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, kind := range []string{"quiet", "idle"} {
			if err := helper.Stop(ctx, dir, kind); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

func start(t *testing.T, spec helper.Spec) *helper.Handle {
	t.Helper()
	h, err := helper.Start(bounded(t), spec)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(spec.Dir, spec.Kind+".log"))
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// expectEnd waits for what may have been seen by another Handle already.
func expectEnd(t *testing.T, h *helper.Handle) {
	t.Helper()
	select {
	case <-h.Done():
	case <-time.After(patience):
		t.Errorf("helper %d lives", h.PID())
	}
}

func alive(h *helper.Handle) bool {
	select {
	case <-h.Done():
		return false
	default:
		return true
	}
}

func TestAHelperOutlivesItsStarterAndIsAdopted(t *testing.T) {
	dir := directory(t)
	said, kill := starter(t, dir, "")
	pid, err := strconv.Atoi(<-said)
	if err != nil {
		t.Fatal(err)
	}
	kill()
	h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir})
	if !h.Adopted || h.PID() != pid || !alive(h) {
		t.Errorf("adopted: %t, process %d, was %d, alive: %t", h.Adopted, h.PID(), pid, alive(h))
	}
	session, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if int(session) != pid {
		t.Errorf("it is in session %d, and not its own", session)
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || bytes.Count(environment, []byte{0}) != 1 {
		t.Errorf("it has the environment %q, %v", environment, err)
	}
	if left, err := os.ReadFile(filepath.Join(dir, "began")); err != nil || len(left) > 0 {
		t.Errorf("its children get the environment %q, %v", left, err)
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if want := "microvm-quiet\x00" + dir + "\x00"; err != nil || string(arguments) != want {
		t.Errorf("it is called %q, want %q, %v", arguments, want, err)
	}
	// Another process ends it: the next call starts another.
	if err := h.Kill(bounded(t)); err != nil {
		t.Fatal(err)
	}
	<-h.Done()
	again := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir})
	if again.Adopted || again.PID() == pid {
		t.Errorf("adopted: %t, process %d", again.Adopted, again.PID())
	}
}

func TestThereIsOneHelperHoweverManyStart(t *testing.T) {
	dir := directory(t)
	var mu sync.Mutex
	pids := map[int]int{}
	note := func(pid int) {
		mu.Lock()
		defer mu.Unlock()
		pids[pid]++
	}
	var starting sync.WaitGroup
	for range 4 {
		said, _ := starter(t, dir, "")
		starting.Go(func() {
			pid, _ := strconv.Atoi(<-said)
			note(pid)
		})
		starting.Go(func() {
			h, err := helper.Start(bounded(t), helper.Spec{Kind: "quiet", Version: "1", Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			note(h.PID())
			h.Close()
		})
	}
	starting.Wait()
	if len(pids) != 1 || pids[0] > 0 {
		t.Errorf("helpers by process: %v", pids)
	}
	// Another directory has its own.
	other := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: directory(t)})
	if pids[other.PID()] > 0 || other.Adopted {
		t.Error("two directories share a helper")
	}
}

func TestAStarterThatDiesTooEarly(t *testing.T) {
	dir := directory(t)
	_, kill := starter(t, dir, "slow")
	waitFor(t, "a helper", func() bool { return exists(filepath.Join(dir, "began")) })
	kill()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := helper.Start(short, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("slow")}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("while one lives that does not serve yet: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("slow")})
	if !h.Adopted {
		t.Error("the helper without a starter was not adopted")
	}
}

func TestAHelperThatNeverServesEndsWithoutItsStarterToo(t *testing.T) {
	dir := directory(t)
	hanging := helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("hang"), Timeout: 300 * time.Millisecond}
	if _, err := helper.Start(bounded(t), hanging); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	os.Remove(filepath.Join(dir, "began"))
	_, kill := starter(t, dir, "hang", "TIMEOUT=4s")
	waitFor(t, "a helper", func() bool { return exists(filepath.Join(dir, "began")) })
	kill()
	if h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir}); h.Adopted { // it waits for that one's end
		t.Error("what never served was adopted")
	}
}

func TestAnotherVersionOrConfigurationReplaces(t *testing.T) {
	dir := directory(t)
	first := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir})
	if same := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir}); same.PID() != first.PID() || !same.Adopted {
		t.Error("the same was not adopted")
	}
	second := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("other")})
	if second.Adopted {
		t.Error("a helper of another configuration was adopted")
	}
	expectEnd(t, first)
	// As a helper that an older program has left.
	path := filepath.Join(dir, "quiet.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(`"version":"1"`), []byte(`"version":"0"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	third := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("other")})
	if third.Adopted || third.Version != "1" {
		t.Errorf("adopted: %t, version %s", third.Adopted, third.Version)
	}
	expectEnd(t, second)
	// This program can't be version 2.
	_, err = helper.Start(bounded(t), helper.Spec{Kind: "quiet", Version: "2", Dir: dir})
	if !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), `version "2" is asked for`) {
		t.Errorf("%v", err)
	}
}

func TestHelpersThatCantServe(t *testing.T) {
	dir := directory(t)
	for config, want := range map[string]string{"fail": "there is no such wall", "panic": "and not that it serves"} {
		_, err := helper.Start(bounded(t), helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte(config)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "quiet.log") {
			t.Errorf("%s: %v", config, err)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "quiet.log"))
	if err != nil || !bytes.Contains(log, []byte("panic: of the wall")) {
		t.Errorf("the log is %q, %v", log, err)
	}
	expectEnd(t, start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte("die")}))
	for path, want := range map[string]string{"/bin/true": "firecracker.Helper()", "/nowhere": "no such file", "relative": "absolute"} {
		_, err := helper.Start(bounded(t), helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Path: path})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := helper.Start(bounded(t), helper.Spec{Kind: "unknown", Version: "1", Dir: dir}); !errors.Is(err, microvm.ErrIncompatible) {
		t.Errorf("%v", err)
	}
	// A program named by its path, which is this one.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Path: program}); h.Adopted || !alive(h) {
		t.Error("a program that is named does not serve")
	}
}

func TestWithoutAProgramThereIsARemedy(t *testing.T) {
	said, _ := starter(t, directory(t), "", forgetVariable+"=1")
	const remedy = "call firecracker.Helper() first in main, or name a microvm binary by Options.HelperPath or MICROVM_HELPER_BIN"
	if text := <-said; !strings.Contains(text, microvm.ErrUnsupported.Error()) || !strings.Contains(text, remedy) {
		t.Errorf("it says %q", text)
	}
	said, _ = starter(t, directory(t), "")
	if text := <-said; strings.Trim(text, "0123456789") != "" {
		t.Errorf("with a main that calls Main it says %q", text)
	}
}

func TestAHelperEndsWhenNothingNeedsIt(t *testing.T) {
	dir := directory(t)
	need := filepath.Join(dir, "need")
	if err := os.WriteFile(need, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := func() int {
		text, _ := os.ReadFile(filepath.Join(dir, "asked"))
		return len(text)
	}
	spec := helper.Spec{Kind: "idle", Version: "1", Dir: dir}
	h := start(t, spec)
	waitFor(t, "questions", func() bool { return asked() >= 3 })
	if !alive(h) {
		t.Fatal("it ended, and was needed")
	}
	// Somebody starts while it is about to leave: it asks once more.
	lock, err := flock.Lock(bounded(t), filepath.Join(dir, "idle.start"))
	if err != nil {
		t.Fatal(err)
	}
	before := asked()
	os.Remove(need)
	waitFor(t, "a question", func() bool { return asked() > before })
	if err := os.WriteFile(need, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	before = asked()
	waitFor(t, "more questions", func() bool { return asked() >= before+3 })
	if again := start(t, spec); !again.Adopted || !alive(h) {
		t.Error("it ended, and was needed again")
	}
	os.Remove(need)
	expectEnd(t, h)
	if _, err := helper.Find(dir, "idle"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is found: %v", err)
	}
	if err := os.WriteFile(need, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if h := start(t, spec); h.Adopted {
		t.Error("what has ended was adopted")
	}
}

func TestFindAndStop(t *testing.T) {
	dir := directory(t)
	if _, err := helper.Find(dir, "quiet"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
	h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir})
	there, err := helper.Find(dir, "quiet")
	if err != nil || there.PID() != h.PID() {
		t.Fatalf("%v, %v", there, err)
	}
	there.Close()
	if err := helper.Stop(bounded(t), dir, "quiet"); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, h)
	left, err := filepath.Glob(filepath.Join(dir, "quiet*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	if err := errors.Join(helper.Stop(bounded(t), dir, "quiet"), helper.Stop(bounded(t), filepath.Join(dir, "none"), "quiet")); err != nil {
		t.Error(err)
	}
	// A helper of before a reboot, whose number is another process's now.
	record := fmt.Sprintf(`{"identity":{"pid":%d,"start_time":1,"boot_id":"before"},"version":"1"}`, os.Getpid())
	if err := os.WriteFile(filepath.Join(dir, "quiet.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	if h := start(t, helper.Spec{Kind: "quiet", Version: "1", Dir: dir}); h.Adopted {
		t.Error("another process was taken for a helper")
	}
}
