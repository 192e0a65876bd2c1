//go:build linux

package helper_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
)

// patience is for what takes milliseconds.
const patience = 20 * time.Second

// Of what a test program is told by its environment.
const (
	starterVariable = "MICROVM_TEST_HELPER_STARTER" // be a starter, of a helper for this directory
	forgetVariable  = "MICROVM_TEST_HELPER_FORGET"  // have a main that doesn't call helper.Main
)

// kinds are what this test program can be.
func kinds() []helper.Kind {
	return []helper.Kind{
		{Name: "quiet", Version: "1", Serve: serve},
		{Name: "idle", Version: "1", Serve: serve, Idle: 20 * time.Millisecond, Needed: needed},
	}
}

// serve does what the configuration says.
func serve(ctx context.Context, s *helper.Session) error {
	if err := os.WriteFile(filepath.Join(s.Dir(), "began"), []byte(strings.Join(os.Environ(), "\n")), 0o600); err != nil {
		return err
	}
	switch string(s.Config()) {
	case "fail":
		return errors.New("there is no such wall")
	case "hang":
		<-ctx.Done()
		return nil
	case "panic":
		panic("of the wall")
	case "die":
		if err := s.Ready(); err != nil {
			return err
		}
		return errors.New("there was a wall")
	case "slow": // until there is a file go
		for !exists(filepath.Join(s.Dir(), "go")) {
			time.Sleep(time.Millisecond)
		}
	}
	if err := s.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// needed says whether there is a file need, and how often it was asked.
func needed(s *helper.Session) bool {
	f, err := os.OpenFile(filepath.Join(s.Dir(), "asked"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		f.Write([]byte{'.'})
		f.Close()
	}
	return exists(filepath.Join(s.Dir(), "need"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestMain(m *testing.M) {
	if os.Getenv(forgetVariable) == "" {
		helper.Main(kinds()...)
	}
	if dir := os.Getenv(starterVariable); dir != "" {
		beStarter(dir)
	}
	os.Exit(leak.Main(m))
}

// beStarter starts a helper, says its number or the error, and waits to be killed.
func beStarter(dir string) {
	timeout, _ := time.ParseDuration(os.Getenv("TIMEOUT")) // none is the default
	h, err := helper.Start(context.Background(), helper.Spec{Kind: "quiet", Version: "1", Dir: dir, Config: []byte(os.Getenv("CONFIG")), Timeout: timeout})
	if err != nil {
		fmt.Println(err)
	} else {
		fmt.Println(h.PID())
	}
	time.Sleep(patience)
	os.Exit(1)
}

// starter is another process that starts a helper, or tries. What it says comes from said, once.
func starter(t *testing.T, dir, config string, variables ...string) (said <-chan string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(variables, starterVariable+"="+dir, "CONFIG="+config)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		text, _ := bufio.NewReader(out).ReadString('\n')
		line <- strings.TrimSpace(text)
	}()
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	}
	t.Cleanup(kill)
	return line, kill
}
