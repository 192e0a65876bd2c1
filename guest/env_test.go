//go:build linux

package guest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// printenv says what a command has of A and B.
func printenv(t *testing.T, d guest.Dialer, own ...string) string {
	t.Helper()
	c := guest.Command(d, "sh", "-c", `echo "${A-none} ${B-none}"`)
	c.Env = own
	out, err := c.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestSetEnv(t *testing.T) {
	a := guesttest.New(t)
	for _, step := range []struct {
		set  map[string]string
		own  []string
		want string
	}{
		{nil, nil, "none none"},
		{map[string]string{"A": "1", "B": "ü = x"}, nil, "1 ü = x"},
		{map[string]string{"A": "2"}, nil, "2 ü = x"},
		{nil, []string{"A=own"}, "own ü = x"},
		{nil, nil, "2 ü = x"},
		{map[string]string{"B": "", "C": ""}, nil, "2 none"},
		{map[string]string{"PATH": "/none:/bin:/usr/bin"}, nil, "2 none"},
	} {
		if step.set != nil {
			if err := guest.SetEnv(t.Context(), a, step.set); err != nil {
				t.Fatal(err)
			}
		}
		if got := printenv(t, a, step.own...); got != step.want {
			t.Errorf("after %v with %v: %q, want %q", step.set, step.own, got, step.want)
		}
	}
	if err := guest.SetEnv(t.Context(), a, map[string]string{"PATH": "/none"}); err != nil {
		t.Fatal(err)
	}
	if err := guest.Command(a, "true").Run(t.Context()); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("a program that is not in the PATH that was set: %v", err)
	}
}

func TestSetEnvIsAllOrNothing(t *testing.T) {
	a := guesttest.New(t)
	if err := guest.SetEnv(t.Context(), a, map[string]string{"A": "1"}); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("s3cret", 10_000)
	many := map[string]string{"A": "2"}
	for i := range 5 {
		many[fmt.Sprint("V", i)] = big
	}
	for name, set := range map[string]map[string]string{
		"no name": {"": "s3cret", "A": "2"}, "a digit first": {"1A": "s3cret", "A": "2"}, "a hyphen": {"A-B": "s3cret", "A": "2"}, "an umlaut": {"Ä": "s3cret", "A": "2"},
		"a NUL byte": {"B": "s3cret\x00", "A": "2"}, "no UTF-8": {"B": "s3cret\xff", "A": "2"}, "one too large": {"B": big + big, "A": "2"}, "too much in all": many,
	} {
		err := guest.SetEnv(t.Context(), a, set)
		if !errors.Is(err, microvm.ErrInvalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := printenv(t, a); got != "1 none" {
		t.Errorf("what was refused was set: %q", got)
	}
}

// secretive is an agent that keeps secrets; the test is skipped where none can.
func secretive(t *testing.T) *guesttest.Agent {
	a := guesttest.New(t)
	if a.Secrets() == "" {
		t.Skip("this host has no /dev/shm")
	}
	return a
}

func TestSecrets(t *testing.T) {
	a := secretive(t)
	expect := func(want ...string) {
		t.Helper()
		if got, err := guest.ListSecrets(t.Context(), a); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	expect()
	values := map[string]string{"token": "a\x00\xff\n", "empty": "", "Large-1_": strings.Repeat("x", 64<<10)}
	for range 2 {
		for name, value := range values {
			if err := guest.SetSecret(t.Context(), a, name, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		values["token"] = "b"
	}
	expect("Large-1_", "empty", "token")
	for name, value := range values {
		path := filepath.Join(a.Secrets(), name)
		got, err := os.ReadFile(path)
		info, err2 := os.Stat(path)
		if err := errors.Join(err, err2); err != nil || string(got) != value || info.Mode() != 0o600 {
			t.Errorf("%s: %d bytes, %v, %v", name, len(got), info, err)
		}
	}
	if info, err := os.Stat(a.Secrets()); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	open, err := os.Open(filepath.Join(a.Secrets(), "Large-1_"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := guest.DeleteSecret(t.Context(), a, "Large-1_"); err != nil {
		t.Error(err)
	}
	left := make([]byte, 64<<10)
	if n, err := open.Read(left); err != nil || strings.Contains(string(left[:n]), "x") {
		t.Errorf("%d bytes are left, %v", n, err)
	}
	expect("empty", "token")
	if err := guest.DeleteSecret(t.Context(), a, "Large-1_"); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestSecretsAreBounded(t *testing.T) {
	a := secretive(t)
	for name, value := range map[string]string{"": "s3cret", "a/b": "s3cret", "..": "s3cret", ".new": "s3cret", "ü": "s3cret", strings.Repeat("a", 65): "s3cret", "large": strings.Repeat("s3cret!", 10_000)} {
		if err := guest.SetSecret(t.Context(), a, name, []byte(value)); !errors.Is(err, microvm.ErrInvalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for i := range 65 {
		err := guest.SetSecret(t.Context(), a, fmt.Sprint("n", i), nil)
		if full := i == 64; full != errors.Is(err, microvm.ErrBusy) || !full && err != nil {
			t.Fatalf("secret %d: %v", i, err)
		}
	}
	if err := guest.SetSecret(t.Context(), a, "n0", []byte("another")); err != nil {
		t.Errorf("a replacement: %v", err)
	}
	for _, ask := range []func() error{
		func() error { return guest.DeleteSecret(t.Context(), a, "../a") },
		func() error { return guest.DeleteSecret(t.Context(), a, "") },
	} {
		if err := ask(); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("error %v", err)
		}
	}
}
