from kdcli.run.lock import Entry, stale


def test_a_setting_that_an_older_kd_did_not_have_had_its_default():
    entry = Entry({"student.lr": 0.5}, {}, {"student": "hash"})
    assert stale(entry, {"student.lr": 0.5, "task.positive": ""}, {}, {}) == []
    assert len(stale(entry, {"student.lr": 0.5, "task.positive": "1"}, {}, {})) == 1
