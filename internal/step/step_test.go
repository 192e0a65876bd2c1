package step

import (
	"errors"
	"slices"
	"testing"
)

func TestSequenceUndoesInReverse(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct {
		name string
		at   string // the point whose hook fails; "" for none
		want []string
	}{
		{"nothing fails", "", []string{"do a", "do b"}},
		{"before the first", "verb/a:before", nil},
		{"after the first", "verb/a:after", []string{"do a", "undo a"}},
		{"before the second", "verb/b:before", []string{"do a", "undo a"}},
		{"after the second", "verb/b:after", []string{"do a", "do b", "undo b", "undo a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log []string
			note := func(s string) func() error {
				return func() error { log = append(log, s); return nil }
			}
			verb := func() (err error) {
				s := Begin("verb", func(point string) error {
					if point == tc.at {
						return boom
					}
					return nil
				})
				defer s.End(&err)
				if err := s.Do("a", note("do a"), note("undo a")); err != nil {
					return err
				}
				return s.Do("b", note("do b"), note("undo b"))
			}
			err := verb()
			if got := errors.Is(err, boom); got != (tc.at != "") {
				t.Errorf("error %v", err)
			}
			if !slices.Equal(log, tc.want) {
				t.Errorf("ran %q, want %q", log, tc.want)
			}
		})
	}
}

func TestSequenceJoinsWhatUndoSays(t *testing.T) {
	cause, undoing := errors.New("cause"), errors.New("undoing")
	verb := func() (err error) {
		s := Begin("verb", nil)
		defer s.End(&err)
		return s.Do("a", func() error { return cause }, func() error { return undoing })
	}
	err := verb()
	if !errors.Is(err, cause) || !errors.Is(err, undoing) {
		t.Errorf("error %v, want both", err)
	}
	if want := "a: cause\nundo a: undoing"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
}
