package main

// Receipts (C2SP tlog-proof) and consistency proofs (the body of C2SP tlog-witness add-checkpoint),
// read here from their specifications, and judged by tlog.

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// readProof returns the lines before the first empty one, and the tree of the signed head after it.
func readProof(vkey, path string) ([]string, tlog.Tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, tlog.Tree{}, err
	}
	head, signed, found := strings.Cut(string(data), "\n\n")
	if !found {
		return nil, tlog.Tree{}, errors.New("there is no signed head")
	}
	tree, err := openNote(vkey, []byte(signed))
	return strings.Split(head, "\n"), tree, err
}

// readNumber returns the number in a line, which begins with name.
func readNumber(line, name string) (int64, error) {
	number, err := strconv.ParseInt(strings.TrimPrefix(line, name+" "), 10, 64)
	if err != nil || fmt.Sprintf("%s %d", name, number) != line {
		return 0, fmt.Errorf("there is no %s", name)
	}
	return number, nil
}

func readHashLines(lines []string) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(lines))
	for i, line := range lines {
		data, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(data) != tlog.HashSize {
			return nil, fmt.Errorf("hash %d cannot be read", i)
		}
		copy(hashes[i][:], data)
	}
	return hashes, nil
}

// checkReceipt proves the record in a file to be in the tree of the receipt's head.
func checkReceipt(vkey, path, record string) (string, error) {
	lines, tree, err := readProof(vkey, path)
	if err != nil {
		return "", err
	}
	if lines[0] != "c2sp.org/tlog-proof@v1" || len(lines) < 2 {
		return "", errors.New("this is no receipt")
	}
	lines = lines[1:]
	if strings.HasPrefix(lines[0], "extra ") && len(lines) > 1 {
		lines = lines[1:]
	}
	index, err := readNumber(lines[0], "index")
	if err != nil {
		return "", err
	}
	hashes, err := readHashLines(lines[1:])
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(record)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(data)); err != nil {
		return "", err
	}
	return fmt.Sprintf("record %d of %d\n", index, tree.N), nil
}

// checkConsistency proves the tree of the proof's head to extend that of an older head.
func checkConsistency(vkey, path, older string) (string, error) {
	lines, tree, err := readProof(vkey, path)
	if err != nil {
		return "", err
	}
	old, err := openCheckpoint(vkey, older)
	if err != nil {
		return "", err
	}
	size, err := readNumber(lines[0], "old")
	if err != nil {
		return "", err
	}
	if size != old.N {
		return "", errors.New("the proof is about another older head")
	}
	hashes, err := readHashLines(lines[1:])
	if err != nil {
		return "", err
	}
	if err := tlog.CheckTree(hashes, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return "", err
	}
	return fmt.Sprintf("from %d to %d\n", old.N, tree.N), nil
}
