package api

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version is a release of Firecracker.
type Version struct{ Major, Minor, Patch int }

// ParseVersion reads "1.12.1", "v1.12.1", "1.13" and the first line of what firecracker --version prints. What follows a dash, as in 1.13.0-dev, is ignored.
func ParseVersion(text string) (Version, error) {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	number := strings.TrimPrefix(strings.TrimPrefix(line, "Firecracker "), "v")
	number, _, _ = strings.Cut(number, "-")
	parts := strings.Split(number, ".")
	var v Version
	if len(parts) < 2 || len(parts) > 3 {
		return v, fmt.Errorf("version %q: not a version of Firecracker", line)
	}
	for i, field := range []*int{&v.Major, &v.Minor, &v.Patch}[:len(parts)] {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("version %q: not a version of Firecracker", line)
		}
		*field = int(n)
	}
	return v, nil
}

// String returns "1.12.1".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare returns -1, 0 or 1, as v is older than, the same as, or newer than other.
func (v Version) Compare(other Version) int {
	return cmp.Or(cmp.Compare(v.Major, other.Major), cmp.Compare(v.Minor, other.Minor), cmp.Compare(v.Patch, other.Patch))
}

// since says whether v has what came with the releases: the last of them, or for older lines the one of the same line.
func (v Version) since(releases []Version) bool {
	for i, r := range releases {
		if i == len(releases)-1 && v.Compare(r) >= 0 || v.Major == r.Major && v.Minor == r.Minor && v.Patch >= r.Patch {
			return true
		}
	}
	return false
}

// releases reads what stands in tables: "1.14.4 1.15.1". The tables are the program's own: what can't be read there is a mistake that tests find.
func releases(text string) []Version {
	var all []Version
	for field := range strings.FieldsSeq(text) {
		v, err := ParseVersion(field)
		if err != nil {
			panic(err)
		}
		all = append(all, v)
	}
	return all
}
