//go:build linux

package main

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/iotest"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestVariables(t *testing.T) {
	got, err := variables([]string{"A=1", "B=", "C=x=y"})
	if err != nil || !maps.Equal(got, map[string]string{"A": "1", "B": "", "C": "x=y"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, args := range [][]string{{"s3cret"}, {"=s3cret"}, {"A=1", "A=2"}, {""}} {
		if got, err := variables(args); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, %v", args, got, err)
		}
	}
}

func TestASecretIsReadToItsLastByte(t *testing.T) {
	for _, want := range []string{"", "a\n", strings.Repeat("a", 64<<10)} {
		if got, err := readSecret(iotest.HalfReader(strings.NewReader(want))); err != nil || string(got) != want {
			t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
		}
	}
	if got, err := readSecret(strings.NewReader(strings.Repeat("a", 64<<10+1))); !errors.Is(err, microvm.ErrInvalid) || got != nil {
		t.Errorf("a large one: %v", err)
	}
	boom := errors.New("boom")
	if got, err := readSecret(iotest.ErrReader(boom)); !errors.Is(err, boom) || got != nil {
		t.Errorf("%v", err)
	}
}
