//go:build linux

package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// longestText has the names of tests that take long by themselves, the longest first: one that began last would be waited for alone.
//
//go:embed longest.json
var longestText []byte

// longestFirst moves the tests that take long to the front. A name's last word is the test's.
func longestFirst[T any](tests []T, name func(T) string) []T {
	var longest []string
	if err := json.Unmarshal(longestText, &longest); err != nil {
		panic(fmt.Sprintf("longest.json: %v", err))
	}
	place := func(test T) int {
		full := name(test)
		if i := slices.Index(longest, full[strings.LastIndex(full, " ")+1:]); i >= 0 {
			return i
		}
		return len(longest)
	}
	slices.SortStableFunc(tests, func(a, b T) int { return place(a) - place(b) })
	return tests
}
