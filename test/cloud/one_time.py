"""One-time runs (runs/submit): jobs that exist for one run only.

What a notebook, file or class does is known by the last part of its name: wait, fail,
clean_flights, load_flights, echo (exits with its parameters, as JSON), text (exits with text that
is no JSON), or what POST /_cloud/notebooks said of that path; anything else is echo.
"""

from job_runs import ACTIONS, Job

KINDS = ("notebook_task", "spark_python_task", "python_wheel_task", "spark_jar_task", "sql_task")
NEEDS_COMPUTE = ("spark_python_task", "python_wheel_task", "spark_jar_task")
PATHS = {"notebook_task": ("notebook_path",), "spark_python_task": ("python_file",), "python_wheel_task": ("entry_point",),
         "spark_jar_task": ("main_class_name",), "sql_task": ("file", "path")}


def task_kind(task):
    """Which of KINDS a submitted task is; ValueError when it is none or several."""
    given = [name for name in KINDS if isinstance(task.get(name), dict)]
    if len(given) != 1 or not isinstance(task.get("task_key"), str):
        raise ValueError("Each task must have a task_key and exactly one task type.")
    return given[0]


def path_of(task):
    value = task[task_kind(task)]
    for name in PATHS[task_kind(task)]:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{task_kind(task)}: {PATHS[task_kind(task)][-1]} is required.")
    return value


def parameters_of(task):
    value = task[task_kind(task)]
    for name in ("base_parameters", "named_parameters", "parameters"):
        given = value.get(name)
        if isinstance(given, dict):
            texts = given.values()
        elif isinstance(given, list):
            texts, given = given, {"arguments": given}
        else:
            continue
        if any(not isinstance(text, str) for text in texts):
            raise ValueError(f"{name} must be strings.")
        return given
    return {}


def check_compute(task, environments):
    kind = task_kind(task)
    if task.get("environment_key") is not None and task["environment_key"] not in environments:
        raise ValueError(f"The environment_key {task['environment_key']} is not defined.")
    given = [name for name in ("existing_cluster_id", "new_cluster", "environment_key") if task.get(name)]
    if len(given) > 1 or (kind in NEEDS_COMPUTE and not given):
        raise ValueError("Exactly one of existing_cluster_id, new_cluster and environment_key must be given.")
    if kind == "sql_task" and not task[kind].get("warehouse_id"):
        raise ValueError("sql_task: warehouse_id is required.")
    if task.get("libraries") and "environment_key" in given:
        raise ValueError("Libraries field is not supported for serverless task, please specify libraries in environment.")


def one_time_job(body, job_id, notebooks):
    """The job of a submitted run. ValueError when the request is not one."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise ValueError("One of job_cluster, tasks or a task type must be given.")
    environments = {one.get("environment_key") for one in body.get("environments") or []}
    known = []
    parameters = {}
    for task in tasks:
        path = path_of(task)
        check_compute(task, environments)
        name = path.rpartition("/")[2].rpartition(".")[2] if task_kind(task) == "spark_jar_task" else \
            path.rpartition("/")[2].partition(".")[0]
        library = notebooks.get(path, {"action": name if name in ACTIONS else "echo"})
        parameters.update(parameters_of(task))
        known.append({**library, "task_key": task["task_key"], "submitted": task, "depends_on": [
            one["task_key"] for one in task.get("depends_on") or []]})
    job = Job({"job_id": job_id, "name": body.get("run_name", "Untitled"), "tasks": known,
               "timeout_seconds": body.get("timeout_seconds", 0)})
    job.one_time = True
    job.given = parameters
    return job
